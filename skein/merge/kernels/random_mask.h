// Random masks over tiles; the numbers are those of merge/random.h.
#pragma once

#include <cstdint>

#include "skein/merge/random.h"

namespace skein::merge {

struct RandomKernels {
  // Bit i of `bits` (the lowest of a byte first): whether random_number(key, model_idx, first + i) is below
  // `threshold`. `first` is a multiple of kRandomGroup; bits are written up to the next multiple behind n.
  void (*mask)(StreamKey key, int model_idx, std::int64_t first, std::int64_t n, std::uint64_t threshold,
               std::uint8_t* bits);
  // delta[i] = factor * delta[i] where the bit is set, else 0.
  void (*keep_masked)(const std::uint8_t* bits, std::int64_t n, float factor, float* delta);
  // numbers[i] = random_number(key, model_idx, first + i) for i < n, any `first`.
  void (*numbers)(StreamKey key, int model_idx, std::int64_t first, std::int64_t n, std::uint32_t* numbers);
};

RandomKernels random_kernels();

}  // namespace skein::merge
