// The rules of PEFT's add_weighted_adapter (0.21.2) on lists of equal tensors: pruning first, signs elected by the
// unweighted sum or count, the agreeing ones summed with their weights and divided by their number.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "skein/merge/random.h"

namespace skein::merge {

struct PeftRule {
  enum class Prune { kNone, kMagnitude, kRandom } prune = Prune::kNone;
  bool elects = false;             // ties: signs are elected; else a weighted sum
  bool sign_by_frequency = false;  // majority_sign_method: frequency, else total
};
// Of "linear", "svd", "ties", "dare_ties", "dare_linear", "magnitude_prune", with or without "_svd".
PeftRule peft_rule(std::string_view combination, bool sign_by_frequency);

// tensors: one per adapter, all of one size. Magnitude pruning keeps int(density n) elements, the lowest index first
// among equals (PEFT: any); random pruning keeps element e of adapter i where random_number(key, i, e) is below
// mask_threshold(density), divided by the density. f32, adapters in order.
std::vector<float> combine_by_peft(const PeftRule& rule, std::vector<std::vector<float>> tensors,
                                   const std::vector<double>& weights, const std::vector<double>& densities,
                                   StreamKey key);

}  // namespace skein::merge
