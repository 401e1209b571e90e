// Sums over tiles, in f64: element i of a tile goes to lane i % 16, the sixteen lanes are added in a fixed order. A
// block's sum is the sum over its tiles in order; a tensor's the sum over its blocks in order. Tiles are zero between n
// and the next multiple of 16.
#pragma once

#include <cstdint>

namespace skein::merge {

struct SumKernels {
  // Four of the elements of a lane are added in f32 first: a relative error of at most 2^-23.
  double (*absolute)(const float* tile, std::int64_t n);
  double (*dot)(const float* a, const float* b, std::int64_t n);
};

SumKernels sum_kernels();

}  // namespace skein::merge
