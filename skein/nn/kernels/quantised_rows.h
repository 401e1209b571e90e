// Rows of a matrix in 8 or 4 bits per number (what the codes mean: nn/quantised_weight.h), restored or multiplied.
//
// A product's bits are those of row_dots (kernels/row_dots.h) with the restored numbers, whichever way it is computed:
// a token's result is the same alone and in any batch. With few rows of x the codes are read once and turned into
// numbers in registers; with more, some rows of w at a time are restored into a buffer that stays in the cache.
// Run-time dispatch on the CPU's vector instructions. Thread-safety: pure functions.
#pragma once

#include <cstdint>

#include "skein/nn/kernels/row_dots.h"

namespace skein {

// Each row is cut into blocks of 32 numbers (8 bits) or 64 (4 bits): 32 bytes of codes and one scale either way. What a
// row lacks to a whole block is there as codes of 0.
struct QuantisedRows {
  static constexpr std::int64_t kBlockBytes = 32;
  static constexpr std::int64_t block_size(int bits) { return kBlockBytes * 8 / bits; }
  std::int64_t blocks() const { return (depth + block_size(bits) - 1) / block_size(bits); }

  int bits = 8;
  std::int64_t depth = 0;                 // K
  const std::uint8_t* codes = nullptr;    // 8 bits: signed; 4 bits: byte i of a block holds number i low, 32 + i high
  const std::uint16_t* scales = nullptr;  // f16, one per block
};

// NormalFloat's levels (arXiv 2305.14314, appendix E): what the 4-bit codes 0 to 15 stand for, times the scale.
extern const float kNormalFloatLevels[16];

// Rows [begin, end) -> out (end - begin, K) contiguous, with room for one block more.
void restore_rows_f32(const QuantisedRows& w, std::int64_t begin, std::int64_t end, float* out);
void restore_rows_bf16(const QuantisedRows& w, std::int64_t begin, std::int64_t end, std::uint16_t* out);

// Outputs [begin, end) of every row of x, as row_dots_f32 and row_dots_bf16; w and bias are whole: row 0 is at w.codes.
void quantised_dots_f32(const RowDots& shape, const float* x, const QuantisedRows& w, const float* bias, float* y,
                        std::int64_t begin, std::int64_t end);
void quantised_dots_bf16(const RowDots& shape, const std::uint16_t* x, const QuantisedRows& w,
                         const std::uint16_t* bias, std::uint16_t* y, std::int64_t begin, std::int64_t end);

}  // namespace skein
