// (IA)3 vectors (arXiv:2205.05638) merged around ones: a vector of ones changes nothing, so what is merged is l - 1, as
// MoV mixes its experts (arXiv:2309.05444) when their weights sum to one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/merge/adapter_merge.h"
#include "skein/merge/recipe.h"

namespace skein::merge {

// Merges the (IA)3 folders (one per model of the recipe) by the recipe's method on l - 1 and writes adapter_config.json
// and adapter_model.safetensors into `folder`. Adapters that leave a module alone count as ones there. With
// `convention: peft` and linear: PEFT's plain weighted sum of l.
Result<MergedAdapter> merge_ia3(Env& env, const Recipe& recipe, std::uint64_t seed,
                                const std::vector<std::string>& adapter_folders, const std::string& folder,
                                std::vector<std::string>& warnings);

}  // namespace skein::merge
