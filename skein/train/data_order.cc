#include "skein/train/data_order.h"

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

}  // namespace skein
