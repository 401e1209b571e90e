// The inner loops of the sparse product on the CPU: shrink z = w A x, expand y += B z; and the product that scores all
// experts for a router. One table per element type and instruction set, chosen once at run time (Highway, and
// AVX512-BF16 by hand).
//
// Layouts are made for vectors of 16 f32 lanes, one rank or one column per lane. kPack elements share a lane: 1 for
// f32, 2 for bf16, where a pair is multiplied and added in one instruction.
//   A of an expert: (rank blocks of 16, ceil(D_in / kPack), 16, kPack), ranks padded with zeros
//   B of an expert: (panels of 32 columns, ceil(R / kPack), columns of the panel, kPack)
//   gates:          (panels of 64 columns, ceil(D_in / kPack), columns of the panel, kPack)
// A last panel is cut to a multiple of 16; columns and the last pair are padded with zeros.
// Sums are f32. Every row goes through the same operations in the same order whatever its neighbours, so that its
// result does not depend on them.
#pragma once

#include <cstdint>

namespace skein {

inline constexpr std::int64_t kRankBlock = 16;
inline constexpr std::int64_t kColumnBlock = 16;
inline constexpr std::int64_t kExpandColumns = 32;   // of a panel of B
inline constexpr std::int64_t kProjectColumns = 64;  // of a panel of gates

inline constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// One expert's share of one row of y.
struct RankPiece {
  const void* z = nullptr;   // its weighted middle values
  std::int64_t b_begin = 0;  // where its panel begins, in elements from the first expert's
  std::int64_t steps = 0;    // ceil(R / kPack)
  // Bytes of the expert's next panel to fetch meanwhile; the rows that share an expert share this work.
  std::int64_t ahead_begin = 0, ahead_size = 0;
};

// T: float, or uint16_t for bf16 bits.
template <typename T>
struct LoraKernels {
  static constexpr std::int64_t kPack = sizeof(T) == 2 ? 2 : 1;

  // For i in [0, count): z[i * z_stride + r] = weights[i] * sum over d of a[d, r] x[rows[i], d], r < z_stride, where
  // z_stride is the rank rounded up to blocks of 16.
  void (*shrink)(const T* a, std::int64_t d_in, const T* x, std::int64_t x_stride, const std::int32_t* rows,
                 const float* weights, std::int64_t count, T* z, std::int64_t z_stride);
  // y[n, c] += sum over the pieces [begin[n], begin[n + 1]) and their ranks of z b, for c < width of one panel; rounded
  // once. Rows without a piece are left alone.
  void (*expand)(const T* b, const RankPiece* pieces, const std::int64_t* begin, std::int64_t num_rows, T* y,
                 std::int64_t y_stride, std::int64_t width);
  // scores[n, c] = sum over d of x[n, d] g[d, c] for one panel. steps: ceil(D_in / kPack); D_in must be whole pairs.
  void (*project)(const T* g, std::int64_t steps, std::int64_t columns, const T* x, std::int64_t x_stride,
                  std::int64_t num_rows, float* scores, std::int64_t scores_stride);
};

const LoraKernels<float>& lora_kernels_f32();
const LoraKernels<std::uint16_t>& lora_kernels_bf16();           // the fastest this machine has
const LoraKernels<std::uint16_t>& lora_kernels_bf16_portable();  // Highway's, for tests
// AVX512-BF16, or null where the machine or the compiler lacks it.
const LoraKernels<std::uint16_t>* lora_kernels_bf16_avx512();

// Sizes in elements of one expert's packed A, and of a B or of gates with panels of `panel` columns (depth: R or D_in).
std::int64_t packed_a_size(std::int64_t rank, std::int64_t d_in, std::int64_t pack);
std::int64_t packed_panels_size(std::int64_t depth, std::int64_t columns, std::int64_t pack);
// Where A[r, d] and the element at (depth i, column c) lie.
std::int64_t packed_a_index(std::int64_t r, std::int64_t d, std::int64_t d_in, std::int64_t pack);
std::int64_t packed_panels_index(std::int64_t i, std::int64_t c, std::int64_t depth, std::int64_t columns,
                                 std::int64_t pack, std::int64_t panel);

}  // namespace skein
