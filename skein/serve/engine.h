// Answers many requests at once: prompts and answers of different lengths, experts, routers and sampling settings as
// rows of one batch, step by step (continuous batching; Orca, OSDI 2022).
//
// One thread of the engine's own computes; all public functions may be called from any thread. What a request gives
// does not depend on what else is served (bound: docs/design/serving.md). Errors: load() throws Failure; requests are
// refused by value, and fail through their sink.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "skein/infer/loaded_model.h"
#include "skein/serve/request.h"

namespace skein {

struct EngineOptions {
  ModelOptions model;                 // base, library (may be empty), compute, sentence_encoder; adapter, mixture and
                                      // router are not read
  std::vector<std::string> mixtures;  // folders of jointly trained mixtures, each served by its folder's name
  int max_running = 64;               // sequences in a step
  int max_waiting = 256;              // in the queue; more are refused
  std::int64_t prefill_tokens =
      256;                       // rows of a step that read prompts: more is faster for prompts, slower for answers
  std::int64_t cache_bytes = 0;  // of keys and values; 0: enough for max_running half-full contexts, at most 2 GiB
  bool reuses_prefixes = true;   // keep the keys and values of prompts for later ones that begin alike
};

struct Refusal {
  enum class Reason {
    kQueueFull,     // later it may fit: 429
    kTooLong,       // prompt and base's positions, or the whole cache
    kUnknownModel,  // no such expert, router or mixture, or one that lacks its gates
    kBadRequest,    // an empty prompt, options out of range
    kStopping,      // the engine takes no more: 503
  } reason;
  std::string message;  // one sentence
};

using RequestId = std::uint64_t;

struct ModelName {
  ModelChoice choice;
  std::string description;           // a short phrase
  std::vector<std::string> experts;  // names by expert_idx, as traces count them; empty: the base
};

// Since the start, or as it is now.
struct EngineStats {
  std::int64_t running = 0, waiting = 0;
  std::int64_t pages_used = 0, pages_kept = 0, pages_total = 0;  // kept: of prefixes nobody is reading
  std::int64_t steps = 0, prompt_tokens = 0, generated_tokens = 0, reused_tokens = 0;
  std::int64_t submitted = 0, refused = 0, finished = 0, cancelled = 0, failed = 0, preempted = 0;
};

class Engine {
 public:
  // Reads the base and the library. Throws Failure.
  static std::unique_ptr<Engine> load(Env& env, const EngineOptions& options);
  virtual ~Engine() = default;  // stops at once

  // Queues a request; the first of its events may come before this returns. Reads the router's gates the first time a
  // choice is asked for, which may take a while.
  virtual std::variant<RequestId, Refusal> submit(Request request, std::shared_ptr<RequestSink> sink) = 0;
  // Ends it with kCancelled unless it has ended; its pages are free before the next step. Unknown ids are ignored.
  virtual void cancel(RequestId id) = 0;

  // Reads the library again: what was submitted before goes on with the experts it has. Throws Failure, and nothing
  // changes then.
  virtual void reload() = 0;
  // The base first, then experts, routers that the library's files allow, mixtures.
  virtual std::vector<ModelName> models() const = 0;

  // Takes no more requests, finishes what is queued and running until `within` has passed, cancels the rest. Returns
  // when all have ended. Idempotent.
  virtual void stop(std::chrono::milliseconds within) = 0;
  virtual EngineStats stats() const = 0;

  virtual const Tokenizer& tokenizer() const = 0;
  virtual const BackboneConfig& config() const = 0;
  virtual const std::vector<SlotName>& backbone_slots() const = 0;  // what TokenTrace::slots counts
  virtual const ComputeOptions& compute() const = 0;
};

}  // namespace skein
