#include "skein/train/data_order.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "skein/base/check.h"

namespace skein {
namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
std::uint64_t mix(std::uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ULL;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebULL;
  return bits ^ (bits >> 31);
}

}  // namespace

std::uint64_t counter_random(std::uint64_t seed, std::uint64_t stream, std::uint64_t counter) {
  constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15ULL;
  return mix(mix(mix(seed + kGolden) + kGolden * (stream + 1)) + kGolden * (counter + 1));
}

DataOrder::DataOrder(std::int64_t num_examples, std::uint64_t seed)
    : seed_(seed), permutation_(static_cast<std::size_t>(num_examples)) {
  SKEIN_CHECK(num_examples >= 1);
}

std::int64_t DataOrder::at(std::int64_t position) {
  const auto count = static_cast<std::int64_t>(permutation_.size());
  if (position / count != epoch_) shuffle(position / count);
  return permutation_[static_cast<std::size_t>(position % count)];
}

void DataOrder::shuffle(std::int64_t epoch) {
  epoch_ = epoch;
  std::iota(permutation_.begin(), permutation_.end(), 0);
  for (std::uint64_t last = permutation_.size() - 1; last > 0; --last) {
    // 64 random bits scaled to [0, last]: the bias is below last / 2^64.
    const std::uint64_t bits = counter_random(seed_, static_cast<std::uint64_t>(epoch), last);
    const auto chosen = static_cast<std::uint64_t>((static_cast<unsigned __int128>(bits) * (last + 1)) >> 64);
    std::swap(permutation_[last], permutation_[chosen]);
  }
}

std::vector<double> task_rates(const std::vector<std::int64_t>& sizes, const TaskRates& rules) {
  std::vector<double> rates;
  double sum = 0;
  for (const std::int64_t size : sizes) {
    const auto counted = static_cast<double>(rules.cap > 0 ? std::min(size, rules.cap) : size);
    rates.push_back(std::pow(counted, 1 / rules.temperature));
    sum += rates.back();
  }
  for (double& rate : rates) rate /= sum;
  return rates;
}

TaskOrder::TaskOrder(const std::vector<int>& task_of, const TaskRates& rules, std::uint64_t seed) : seed_(seed) {
  SKEIN_CHECK(!task_of.empty());
  examples_.resize(static_cast<std::size_t>(*std::max_element(task_of.begin(), task_of.end())) + 1);
  for (std::size_t i = 0; i < task_of.size(); ++i) examples_[task_of[i]].push_back(static_cast<std::int64_t>(i));
  std::vector<std::int64_t> sizes;
  for (std::size_t task = 0; task < examples_.size(); ++task) {
    sizes.push_back(static_cast<std::int64_t>(examples_[task].size()));
    orders_.emplace_back(sizes.back(), counter_random(seed, 0x7461736b, task));
  }
  double sum = 0;
  for (const double rate : task_rates(sizes, rules)) cumulative_.push_back(sum += rate);
  drawn_.assign(examples_.size(), 0);
}

int TaskOrder::draw(std::int64_t position) const {
  constexpr double kToUnit = 1.0 / 9007199254740992.0;  // 2^-53
  const auto bits = counter_random(seed_, 0x64726177, static_cast<std::uint64_t>(position));
  const double value = static_cast<double>(bits >> 11) * kToUnit;
  const auto found = std::upper_bound(cumulative_.begin(), cumulative_.end() - 1, value);
  return static_cast<int>(found - cumulative_.begin());
}

std::int64_t TaskOrder::at(std::int64_t position) {
  if (position < next_position_) {
    std::fill(drawn_.begin(), drawn_.end(), 0);
    next_position_ = 0;
  }
  for (; next_position_ < position; ++next_position_) ++drawn_[draw(next_position_)];
  const int task = draw(position);
  return examples_[task][orders_[task].at(drawn_[task])];
}

}  // namespace skein
