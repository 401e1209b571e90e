// LoRA adapters merged into one. Rules: docs/formats/merged-adapters.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/merge/adapter_merge.h"
#include "skein/merge/recipe.h"

namespace skein::merge {

// Merges the LoRA folders (one per model of the recipe) and writes adapter_config.json and adapter_model.safetensors
// into `folder`: an exact sum of concatenated rank, a sum cut to a rank, PEFT's rules on A and B or on the products, or
// any method of whole models on the products.
Result<MergedAdapter> merge_lora(Env& env, const Recipe& recipe, std::uint64_t seed,
                                 const std::vector<std::string>& adapter_folders, const std::string& folder,
                                 std::vector<std::string>& warnings);

}  // namespace skein::merge
