// The options that name a model: base, what stands in its slots, where it computes. Shared by the verbs that run one.
#pragma once

#include <string>
#include <vector>

#include "skein/cli/common_options.h"
#include "skein/infer/loaded_model.h"
#include "skein/io/json.h"

namespace skein {

struct ModelFlags {
  std::string base;
  std::string adapter;
  std::string library;
  std::string mixture;
  std::string router = "phatgoose";
  int top_k = 2;
  double router_temperature = 1;
  double router_top_p = 1;
  std::string router_softmax = "own";
  std::string choice_by = "own";
  std::string choice_for = "module";
  std::string mix = "own";
  std::string gates = "own";
  std::vector<std::string> general;
  std::string sentence_encoder = "models/minilm";
  double description_weight = 1;
  std::string gate_norm = "layer";
  bool bf16_scores = false;
  std::string expert;
  std::vector<std::string> only, without;
  std::uint64_t expert_memory = 0;  // bytes; 0: all
  bool allow_other_base = false;
  std::string device, dtype;
  int base_bits = 0;
  bool needs_gradients = false;  // set by the verbs that train
};

// --base, --device, --dtype.
void add_base_flags(CLI::App& command, ModelFlags& flags);
// --base-bits, whose numbers stay frozen.
void add_base_bits(CLI::App& command, ModelFlags& flags);
// --base, --device, --dtype, --base-bits, --adapter, --library, --router and the router's switches.
void add_model_flags(CLI::App& command, ModelFlags& flags);
// Where and how the base computes. Throws Failure (kUsage) on what is not there.
ComputeOptions compute_options(const ModelFlags& flags);
// Threads of libtorch too: call instead of apply_common_options. Throws Failure (kUsage) on a device that is not there.
ModelOptions model_options(const ModelFlags& flags, const CommonOptions& common);
// With --expert-memory: how often an expert was in memory, into the log, and {"hits", "misses", "bytes_read",
// "bytes_kept", "bytes_stored"}; null without.
Json report_expert_pages(const LoadedModel& model);
// What the router's switches mean. Throws Failure (kUsage).
RouterOptions router_options(const ModelFlags& flags, std::uint64_t seed);
// "phatgoose, top 2", "single expert trec": for titles and results.
std::string router_words(const RouterOptions& router);
// The same of whatever stands in the slots: "mixture mov", or the router's words.
std::string expert_words(const ModelOptions& options);

}  // namespace skein
