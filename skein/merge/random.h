// Random numbers of the merge methods: a pure function of (seed, tensor name, model, element), so that a mask does not
// depend on the order of tensors, threads, memory, shards or ranks, and any piece of it can be made alone.
//
// Philox4x32 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") with 10 rounds.
//   key      = stream_key(seed, tensor name): two 32-bit words
//   counter  = {low word of c, high word of c, model, h}
//   element e, of group g = e / 128, place p = e % 128:  c = 16 g + p % 16; of the four words of that counter number
//   (p / 16) % 4, and of that word the lower half if p < 64, else the upper one. Those 16 bits, with h = 0, are the
//   upper half of the element's 32-bit number; with h = 1 the lower half.
// (Sixteen counters at a time fill 128 elements without a shuffle, and the lower halves are needed once in 65536
// times.) An element is kept with probability p if its number is below mask_threshold(p) = floor(2^32 p).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace skein::merge {

inline constexpr int kPhiloxRounds = 10;
inline constexpr std::uint32_t kPhiloxM0 = 0xD2511F53, kPhiloxM1 = 0xCD9E8D57;
inline constexpr std::uint32_t kPhiloxW0 = 0x9E3779B9, kPhiloxW1 = 0xBB67AE85;
inline constexpr std::int64_t kRandomGroup = 128;

struct StreamKey {
  std::uint32_t k0 = 0, k1 = 0;
};

using PhiloxWords = std::array<std::uint32_t, 4>;

inline PhiloxWords philox(PhiloxWords counter, StreamKey key) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const std::uint64_t p0 = std::uint64_t{kPhiloxM0} * counter[0];
    const std::uint64_t p1 = std::uint64_t{kPhiloxM1} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key.k0, static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key.k1, static_cast<std::uint32_t>(p0)};
    key = {key.k0 + kPhiloxW0, key.k1 + kPhiloxW1};
  }
  return counter;
}

// FNV-1a over the name's bytes, then SplitMix64's finaliser over (hash, seed).
inline StreamKey stream_key(std::uint64_t seed, std::string_view tensor_name) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : tensor_name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  std::uint64_t z = hash + seed * 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  z ^= z >> 31;
  return {static_cast<std::uint32_t>(z), static_cast<std::uint32_t>(z >> 32)};
}

// The number of one element.
inline std::uint32_t random_number(StreamKey key, int model_idx, std::int64_t element) {
  const auto group = static_cast<std::uint64_t>(element) / kRandomGroup;
  const auto place = static_cast<std::uint64_t>(element) % kRandomGroup;
  const std::uint64_t c = group * 16 + place % 16;
  const auto half = [&](std::uint32_t h) {
    const PhiloxWords words = philox(
        {static_cast<std::uint32_t>(c), static_cast<std::uint32_t>(c >> 32), static_cast<std::uint32_t>(model_idx), h},
        key);
    return words[place / 16 % 4] >> (place < 64 ? 0 : 16) & 0xffffU;
  };
  return half(0) << 16 | half(1);
}

// Numbers below this are kept: 2^32 p, rounded down; 2^32 (everything) from p = 1 on, 0 (nothing) for p <= 0.
inline std::uint64_t mask_threshold(double p) {
  if (!(p > 0)) return 0;
  return p >= 1 ? std::uint64_t{1} << 32 : static_cast<std::uint64_t>(p * 4294967296.0);
}

}  // namespace skein::merge
