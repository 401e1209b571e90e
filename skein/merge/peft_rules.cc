#include "skein/merge/peft_rules.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace skein::merge {
namespace {

void keep_largest(std::vector<float>& tensor, double density) {
  const auto kept = static_cast<std::int64_t>(density * static_cast<double>(tensor.size()));
  std::vector<std::size_t> order(tensor.size());
  std::iota(order.begin(), order.end(), 0);
  const auto before = [&](std::size_t a, std::size_t b) {
    const float x = std::abs(tensor[a]), y = std::abs(tensor[b]);
    return x != y ? x > y : a < b;
  };
  std::nth_element(order.begin(), order.begin() + kept, order.end(), before);
  for (auto at = order.begin() + kept; at != order.end(); ++at) tensor[*at] = 0;
}

void keep_random(std::vector<float>& tensor, double density, StreamKey key, int adapter) {
  const std::uint64_t threshold = mask_threshold(density);
  for (std::size_t at = 0; at < tensor.size(); ++at) {
    const bool kept = random_number(key, adapter, static_cast<std::int64_t>(at)) < threshold;
    tensor[at] = kept ? tensor[at] / static_cast<float>(density) : 0.0F;
  }
}

int sign_of(float value) { return (value > 0) - (value < 0); }

}  // namespace

PeftRule peft_rule(std::string_view combination, bool sign_by_frequency) {
  PeftRule rule{.sign_by_frequency = sign_by_frequency};
  if (combination.starts_with("dare")) rule.prune = PeftRule::Prune::kRandom;
  if (combination.starts_with("ties") || combination.starts_with("magnitude")) rule.prune = PeftRule::Prune::kMagnitude;
  rule.elects = combination.find("ties") != std::string_view::npos;
  return rule;
}

std::vector<float> combine_by_peft(const PeftRule& rule, std::vector<std::vector<float>> tensors,
                                   const std::vector<double>& weights, const std::vector<double>& densities,
                                   StreamKey key) {
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (densities[i] >= 1 || rule.prune == PeftRule::Prune::kNone) continue;
    if (rule.prune == PeftRule::Prune::kMagnitude) keep_largest(tensors[i], densities[i]);
    if (rule.prune == PeftRule::Prune::kRandom) keep_random(tensors[i], densities[i], key, static_cast<int>(i));
  }
  std::vector<float> result(tensors[0].size(), 0.0F);
  for (std::size_t at = 0; at < result.size(); ++at) {
    float vote = 0;
    for (const auto& tensor : tensors) vote += rule.sign_by_frequency ? sign_of(tensor[at]) : tensor[at];
    const int majority = vote >= 0 ? 1 : -1;
    int agreeing = 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (rule.elects && sign_of(tensors[i][at]) != majority) continue;
      ++agreeing;
      result[at] += static_cast<float>(weights[i]) * tensors[i][at];
    }
    if (rule.elects) result[at] /= static_cast<float>(std::max(agreeing, 1));
  }
  return result;
}

}  // namespace skein::merge
