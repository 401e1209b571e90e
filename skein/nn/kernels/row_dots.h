// y[n, m] = sum over k of x[n, k] * w[m, k] (+ bias[m]): a linear layer as dot products of rows, both operands as they
// lie.
//
// Every output is summed in an order that depends on K and the machine only, never on the number of rows: a token's
// result is the same bits alone and in any batch. With few rows the speed is that of reading w once.
// Run-time dispatch on the CPU's vector instructions. Thread-safety: pure functions.
#pragma once

#include <cstdint>

namespace skein {

struct RowDots {
  std::int64_t rows = 0;      // N
  std::int64_t depth = 0;     // K
  std::int64_t x_stride = 0;  // elements between rows of x, of y
  std::int64_t y_stride = 0;
};

// Outputs [begin, end) of every row. w: row begin of a contiguous (M, K) matrix is at w + begin * K; bias may be null.
void row_dots_f32(const RowDots& shape, const float* x, const float* w, const float* bias, float* y, std::int64_t begin,
                  std::int64_t end);
// bf16 bits in and out, summed in f32, rounded once.
void row_dots_bf16(const RowDots& shape, const std::uint16_t* x, const std::uint16_t* w, const std::uint16_t* bias,
                   std::uint16_t* y, std::int64_t begin, std::int64_t end);

}  // namespace skein
