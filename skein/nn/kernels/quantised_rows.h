// Rows of a matrix as 8-bit integers times a scale per block (what they mean: nn/quantised_weight.h): restored, or
// multiplied as integers.
//
// Rows lie in groups of 16, so that a vector holds the same columns of 16 outputs and no sum crosses a vector. A group
// is a tile of 512 bytes after the other, one per block of columns:
//   8 bits   blocks of 32 columns: byte 64 j + 4 r + i is 128 + the integer of row r, column 4 j + i
//   4 bits   blocks of 64: its low half is the index of the level of row r, column 4 j + i; its high half of 32 columns
//   on
// A scale is an f16, the 16 rows' side by side: (groups, blocks, 16). What a group lacks to 16 rows has the scale 0;
// what a row lacks to a whole block may be anything. Run-time dispatch on the CPU's vector instructions. Thread-safety:
// pure functions.
#pragma once

#include <cstdint>
#include <vector>

namespace skein {

struct QuantisedRows {
  static constexpr std::int64_t kGroup = 16, kTileBytes = 512;
  static constexpr std::int64_t block_size(int bits) { return kTileBytes * 8 / (kGroup * bits); }  // columns
  std::int64_t blocks() const { return (depth + block_size(bits) - 1) / block_size(bits); }
  // The tile of a group and block.
  const std::uint8_t* tile(std::int64_t group, std::int64_t block) const {
    return codes + (group * blocks() + block) * kTileBytes;
  }
  const std::uint16_t* tile_scales(std::int64_t group, std::int64_t block) const {
    return scales + (group * blocks() + block) * kGroup;
  }

  int bits = 8;
  std::int64_t depth = 0;  // K, columns
  const std::uint8_t* codes = nullptr;
  const std::uint16_t* scales = nullptr;
};

// What the 4-bit codes 0 to 15 stand for: NormalFloat's levels (arXiv 2305.14314, appendix E) times 127, rounded.
constexpr std::int8_t kLevels[16] = {-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127};

// Rows [begin, end) as numbers -> out (end - begin, K), contiguous.
void restore_rows_f32(const QuantisedRows& w, std::int64_t begin, std::int64_t end, float* out);
void restore_rows_bf16(const QuantisedRows& w, std::int64_t begin, std::int64_t end, std::uint16_t* out);

// Rows of x as integers: blocks of 32, x ~ q s, s = max |x| / 127. A block with NaN or infinity has the scale NaN.
struct EightBitInputs {
  std::int64_t rows = 0, blocks = 0;  // enough blocks for w's whole ones
  std::vector<std::int8_t> numbers;   // (rows, blocks, 32); 0 beyond x's columns
  std::vector<float> scales;          // (rows, blocks)
  std::vector<std::int32_t> offsets;  // (rows, blocks): -128 times the sum of the block
};
// x: bf16 bits of rows `stride` apart.
EightBitInputs eight_bit_inputs(const std::uint16_t* x, std::int64_t rows, std::int64_t stride, const QuantisedRows& w);

// y[n, m] = sum over blocks of s_x s_w * (the integers' dot product), block after block, + bias[m] (null: none), as
// bf16 bits, for the outputs of groups [begin, end) below `outputs`. The integers' sums are exact, so a row's result is
// the same bits in any company and with any instructions that have fused multiply-add.
void integer_dots(const EightBitInputs& x, const QuantisedRows& w, const std::uint16_t* bias, std::uint16_t* y,
                  std::int64_t y_stride, std::int64_t outputs, std::int64_t begin, std::int64_t end);

}  // namespace skein
