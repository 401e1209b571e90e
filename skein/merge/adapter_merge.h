// Merges of adapters alone, which give one adapter: no base is read. Formats and rules:
// docs/formats/merged-adapters.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/merge/recipe.h"

namespace skein::merge {

// Whether the recipe's models are PEFT adapters without a base ("+adapter", or the folder of an adapter). Some adapters
// and some models is an error that says how to write base+adapter. A base_model beside adapters only gives its name to
// the output.
Result<bool> merges_adapters(Env& env, const Recipe& recipe);

// The folder of a model of such a recipe.
Result<std::string> adapter_folder_of(Env& env, const ModelRef& ref, const std::string& recipe_path);

struct MergedModule {
  std::string module;
  std::int64_t rank = 0;
  double relative_error = 0;  // of the truncation, Frobenius norm; 0 where nothing was cut
};
struct MergedAdapter {
  std::size_t num_adapters = 0;
  std::vector<MergedModule> modules;
  double relative_error = 0;  // over all modules together
};

// Reads, merges and writes adapter_config.json, adapter_model.safetensors, README.md and mergekit_config.yml into
// `folder`, which exists. LoRA, or (IA)3 (see ia3_merge.h). recipe_text, program: for the card. Memory: the adapters,
// and for methods on dense products the deltas of one module.
Result<MergedAdapter> merge_adapters(Env& env, const Recipe& recipe, std::uint64_t seed, const std::string& folder,
                                     const std::string& recipe_text, const std::string& program,
                                     std::vector<std::string>& warnings);

}  // namespace skein::merge
