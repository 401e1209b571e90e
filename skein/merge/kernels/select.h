// Kernels of selection by magnitude. With the sign bit cleared, the bits of finite floats order as their magnitudes do,
// so a histogram over the bits finds the k-th largest without sorting (NaN counts as larger than everything).
#pragma once

#include <cstdint>

#include "skein/base/dtype.h"
#include "skein/merge/kernels/tiles.h"

namespace skein::merge {

inline constexpr std::int64_t kKeys = 32768;
// Counters per key, taken in turn: equal keys in a row would otherwise wait for each other's store.
inline constexpr int kCounterCopies = 4;

// The key of a magnitude, below kKeys: its bits when rounded to bf16 or f16; for any other type the upper 15 of the 31
// bits of the f32 (the lower 16 are looked at in a second pass).
std::uint32_t magnitude_key(DType type, std::uint32_t magnitude_bits);
// The smallest magnitude's bits whose key is at least `key`; 2^31 (above all) if there is none.
std::uint32_t first_bits_of_key(DType type, std::uint32_t key);

struct KeyRange {
  std::uint32_t lowest = kKeys;  // of the keys that are not 0
  std::uint32_t highest = 0;
};

struct SelectKernels {
  // slots[i] = kCounterCopies * key + i % kCounterCopies for the n deltas, and the range of keys.
  KeyRange (*slots)(const float* delta, std::int64_t n, DType type, std::uint32_t* slots);
  // How many of the n have lo <= bits of the magnitude < hi.
  std::int64_t (*count_between)(const float* delta, std::int64_t n, std::uint32_t lo, std::uint32_t hi);
  // Zeroes all others.
  void (*keep_between)(float* delta, std::int64_t n, std::uint32_t lo, std::uint32_t hi);
  // Both at once: keeps [lo, hi), counts [from, to), a part of it.
  std::int64_t (*keep_and_count)(float* delta, std::int64_t n, std::uint32_t lo, std::uint32_t hi, std::uint32_t from,
                                 std::uint32_t to);
};

SelectKernels select_kernels();

// ++counters[slot] for each.
void count_slots(const std::uint32_t* slots, std::int64_t n, std::uint32_t* counters);

}  // namespace skein::merge
