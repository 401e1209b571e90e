// The inner loops of the sparse product on the CPU: shrink z = w A x, expand d += B z, add y += d. One table per
// element type and instruction set, chosen once at run time (Highway, and AVX512-BF16 by hand).
//
// Layouts are made for vectors of 16 f32 lanes, one rank or one output column per lane. kPack elements share a lane: 1
// for f32, 2 for bf16, where a pair is multiplied and added in one instruction.
//   A of an expert: (rank blocks of 16, ceil(D_in / kPack), 16, kPack), ranks padded with zeros
//   B of an expert: (panels of 64 columns, ceil(R / kPack), columns of the panel, kPack), the last panel cut to a
//   multiple
//                   of 16, columns and ranks padded with zeros
// Sums are f32. Every row goes through the same operations in the same order whatever tile it falls into, so that a
// row's result does not depend on its neighbours.
#pragma once

#include <cstdint>

namespace skein {

inline constexpr std::int64_t kRankBlock = 16;
inline constexpr std::int64_t kPanelColumns = 64;
inline constexpr std::int64_t kColumnBlock = 16;

inline constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// T: float, or uint16_t for bf16 bits.
template <typename T>
struct LoraKernels {
  static constexpr std::int64_t kPack = sizeof(T) == 2 ? 2 : 1;

  // For i in [0, count): z[i * z_stride + r] = weights[i] * sum over d of a[d, r] x[rows[i], d], r < z_stride, where
  // z_stride is the rank rounded up to blocks of 16.
  void (*shrink)(const T* a, std::int64_t d_in, const T* x, std::int64_t x_stride, const std::int32_t* rows,
                 const float* weights, std::int64_t count, T* z, std::int64_t z_stride);
  // For i in [0, count): d[rows[i] * d_stride + c] += sum over ranks of z[i, r] b[r, c] for one panel of `columns`
  // columns. steps: ceil(R / kPack). rows null: 0, 1, 2, ...
  void (*expand)(const T* b_panel, std::int64_t steps, std::int64_t columns, const T* z, std::int64_t z_stride,
                 const std::int32_t* rows, std::int64_t count, float* d, std::int64_t d_stride);
  // y[c] += d[c] for one row, rounded once.
  void (*add)(const float* d, T* y, std::int64_t columns);
};

const LoraKernels<float>& lora_kernels_f32();
const LoraKernels<std::uint16_t>& lora_kernels_bf16();           // the fastest this machine has
const LoraKernels<std::uint16_t>& lora_kernels_bf16_portable();  // Highway's, for tests
// AVX512-BF16, or null where the machine or the compiler lacks it.
const LoraKernels<std::uint16_t>* lora_kernels_bf16_avx512();

// Sizes in elements of one expert's packed A and B.
std::int64_t packed_a_size(std::int64_t rank, std::int64_t d_in, std::int64_t pack);
std::int64_t packed_b_size(std::int64_t rank, std::int64_t d_out, std::int64_t pack);
// Where A[r, d] and B[c, r] lie.
std::int64_t packed_a_index(std::int64_t r, std::int64_t d, std::int64_t d_in, std::int64_t pack);
std::int64_t packed_b_index(std::int64_t r, std::int64_t c, std::int64_t rank, std::int64_t d_out, std::int64_t pack);

}  // namespace skein
