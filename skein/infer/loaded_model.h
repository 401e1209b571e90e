// What the model options of a command line mean: a base, its tokenizer, and what stands in its slots.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "skein/io/env.h"
#include "skein/nn/backbone.h"
#include "skein/route/routed_slot.h"
#include "skein/route/router.h"
#include "skein/spec/example.h"
#include "skein/text/tokenizer.h"

namespace skein {

struct ModelOptions {
  std::string base;                                // --base: folder or .gguf
  std::string adapter;                             // --adapter: one PEFT adapter on top (excludes library)
  std::string library;                             // --library
  std::string mixture;                             // --mixture: a folder that train mov or molora wrote (excludes both)
  RouterOptions router;                            // --router, --top-k, --experts, --without, ...
  std::string sentence_encoder = "models/minilm";  // --sentence-encoder: for routers that read texts
  std::uint64_t expert_memory = 0;  // --expert-memory: bytes of a library's LoRAs to keep, the rest is paged; 0: all
  bool allow_other_base = false;
  bool recompute_blocks = false;  // training: less memory, more time (Backbone::set_checkpoint_blocks)
  ComputeOptions compute;
};

// What a router that needs hints is told of each text (RouterKind::needs_hints).
class HintSource {
 public:
  virtual ~HintSource() = default;
  virtual std::shared_ptr<const SequenceHint> hint(const Example& example) const = 0;
};

struct LoadedModel {
  BaseModel base;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const Backbone> backbone;
  std::shared_ptr<const ExpertBank> bank;    // null: plain base
  std::string bank_identity;                 // which library's files the bank was made of
  std::shared_ptr<const SlotFiller> filler;  // null: plain base
  std::vector<std::string> expert_names;     // of the bank or the mixture, in order; empty: plain base
  std::shared_ptr<const HintSource> hints;   // null: the router needs none
  ForwardState new_state() const { return ForwardState{filler.get(), nullptr}; }
  // For EncodedExample::hint and DecodeOptions::hints; null where the router needs none.
  std::shared_ptr<const SequenceHint> hint_of(const Example& example) const {
    return hints == nullptr ? nullptr : hints->hint(example);
  }
};

// Throws Failure: a missing file, an adapter of another base or shape, a library of another base (both fingerprints
// named).
LoadedModel load_model(Env& env, const ModelOptions& options);
// Another library or router on the same backbone, without reading the base again (nor the experts, if library.json
// still names the same files).
void change_experts(Env& env, LoadedModel& model, const ModelOptions& options);

// The experts of a library that may be routed among, in its order: without the general ones, which are subtracted from
// the others (RouterOptions::general).
struct PoolMembers {
  std::vector<std::string> names;
  std::vector<LoraAdapter> adapters;
};
PoolMembers read_pool(Env& env, const std::string& library, const std::vector<std::string>& general,
                      const std::vector<SlotName>& slots);

}  // namespace skein
