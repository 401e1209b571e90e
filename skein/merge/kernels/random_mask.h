// Random masks over tiles; the numbers are those of merge/random.h.
#pragma once

#include <cstdint>

#include "skein/merge/random.h"

namespace skein::merge {

struct RandomKernels {
  // words[i] = random_word(key, model_idx, first + i) for i < n
  void (*words)(StreamKey key, int model_idx, std::int64_t first, std::int64_t n, std::uint32_t* words);
  // delta[i] = factor * delta[i] where that word is below threshold (as mask_threshold gives it), else 0.
  void (*keep)(StreamKey key, int model_idx, std::int64_t first, std::int64_t n, std::uint64_t threshold, float factor,
               float* delta);
  // The same with a threshold per element, at most 2^32 - 1, and without a factor.
  void (*keep_each)(StreamKey key, int model_idx, std::int64_t first, std::int64_t n, const std::uint32_t* thresholds,
                    float* delta);
};

RandomKernels random_kernels();

}  // namespace skein::merge
