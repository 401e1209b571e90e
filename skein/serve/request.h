// What is asked of the engine, and what it answers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "skein/route/router.h"
#include "skein/text/tokenizer.h"

namespace skein {

// What stands in the slots for one request.
struct ModelChoice {
  enum class Kind {
    kBase,     // nothing
    kExpert,   // one expert of the library: `name`
    kRouter,   // the library's experts, chosen by `router`
    kMixture,  // experts and routers trained together: `name` as list_models() spells it
  } kind = Kind::kBase;
  std::string name;
  RouterOptions router;  // kRouter: default_router(KIND) with top_k, temperature, without, use.scope, ... changed
};

struct Sampling {
  double temperature = 0;         // 0: greedy
  double top_p = 1;               // the smallest set of tokens with at least this probability
  std::uint64_t seed = 0;         // the same seed, the same text, whatever else is served
  double presence_penalty = 0;    // subtracted from the logit of every token that was generated (OpenAI's rule)
  double frequency_penalty = 0;   // times how often it was generated
  double repetition_penalty = 1;  // logits of tokens seen, in the prompt or the answer: divided by it where positive,
                                  // else multiplied (arXiv 1909.05858, section 4.1)
  std::vector<std::pair<TokenId, float>> logit_bias;  // added to logits
};

struct Request {
  enum class Task {
    kGenerate,
    kEmbed,  // mean of the last hidden states over the prompt's tokens
  } task = Task::kGenerate;
  std::vector<TokenId> prompt;  // decoder-only: what is gone on from; encoder-decoder: the source
  std::string input_text;       // the prompt as a text, for routers that read texts (RouterKind::needs_hints)
  std::string client;           // who asks: clients take turns, whatever each has queued
  std::string prefix_scope;     // keys and values of prompts are reused among requests of one scope only
  ModelChoice model;
  Sampling sampling;
  std::int64_t max_new_tokens = 128;  // cut to what the base's positions leave. 0: the prompt is scored only
  std::vector<std::string> stop;      // the answer ends before the first of these
  bool ignore_end = false;            // benchmarks: go on past end of sequence
  int num_logprobs = -1;              // -1: none; 0: of the chosen tokens; n: and of the n likeliest
  bool score_prompt = false;          // with num_logprobs >= 0: of the prompt's tokens too (echo). Decoder-only
  bool trace = false;                 // which experts each token took
};

// Natural logarithms under softmax(logits), before temperature, penalties and bias.
struct TokenLogprobs {
  float logprob = 0;                           // of the token itself
  std::vector<std::pair<TokenId, float>> top;  // likeliest first
};

// Whom a token chose, slot by slot: the token's own pass, so of a generated token when it was read to predict the next.
struct TokenTrace {
  int k = 0;                        // experts per slot
  std::vector<std::int32_t> slots;  // slot_idx (Engine::backbone_slots()); those that any expert attaches to
  std::vector<std::int32_t> ids;    // (slots, k) expert_idx, best first; -1: none
  std::vector<float> weights;       // (slots, k)
};

struct PromptToken {
  std::int64_t position = 0;
  TokenId token = 0;
  bool in_source = false;                 // of an encoder's input
  std::optional<TokenLogprobs> logprobs;  // score_prompt; of no first token
  std::optional<TokenTrace> trace;
};

struct GeneratedToken {
  TokenId token = 0;
  // What became certain with it: whole characters, nothing that may yet turn out to begin a stop text. Often empty; all
  // of them and Finish::text joined are the answer.
  std::string text;
  std::optional<TokenLogprobs> logprobs;
};

struct Finish {
  enum class Reason {
    kEnd,        // an end token
    kStopText,   // stop_text
    kLength,     // max_new_tokens, or the base's positions are full
    kCancelled,  // cancel(), or the engine stopped at its deadline
    kFailed,     // failure
  } reason = Reason::kEnd;
  std::string text;       // what was held back until now
  std::string stop_text;  // which one, with kStopText
  std::string failure;    // one sentence, with kFailed
  std::int64_t prompt_tokens = 0, generated_tokens = 0;
  std::int64_t reused_tokens = 0;  // of the prompt, whose keys and values were there already
  std::vector<float> embedding;    // Task::kEmbed: (D)
};

// Receives what happens to one request, in order, from the engine's thread. Must return quickly (hand the work on) and
// throw nothing; may call Engine::submit and cancel.
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  virtual void on_prompt_tokens(std::vector<PromptToken>) {}  // score_prompt or trace: all of it, perhaps in parts
  virtual void on_token(GeneratedToken token) = 0;
  // Traces of generated tokens, in order, each once (the last token of an answer is never read and has none).
  virtual void on_trace(TokenTrace) {}
  virtual void on_finish(Finish finish) = 0;  // the last call
};

}  // namespace skein
