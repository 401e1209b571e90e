// A frozen weight in 8 or 4 bits per number, for training on larger bases in less memory (--base-bits).
//
// Each row is cut into blocks of 64 numbers with their largest magnitude m in f32 (so 8.5 or 4.5 bits in all):
//   8 bits   w' = q m / 127, q = round(127 w / m)
//   4 bits   w' = m times the nearest of NormalFloat's 16 levels to w / m (arXiv 2305.14314, appendix E)
// Computing turns the rows it needs back into the compute type, uses them once and drops them. CPU.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace skein {

class QuantisedWeight {
 public:
  static constexpr std::int64_t kBlock = 64;
  static const float kLevels[16];  // of 4 bits: ascending, -1 to 1, 0 among them

  // weight (D_out, D_in): f32 or bf16, finite, on the CPU. bits: 8 or 4.
  QuantisedWeight(const at::Tensor& weight, int bits);

  at::Tensor rows(std::int64_t first, std::int64_t count, c10::ScalarType dtype) const;  // (count, D_in)
  std::int64_t num_rows() const { return num_rows_; }
  std::int64_t num_bytes() const;

 private:
  std::int64_t blocks_per_row() const { return (num_columns_ + kBlock - 1) / kBlock; }
  std::int64_t bytes_per_row() const { return bits_ == 8 ? num_columns_ : (num_columns_ + 1) / 2; }

  int bits_;
  std::int64_t num_rows_, num_columns_;
  std::vector<std::uint8_t> codes_;  // row by row; of 4 bits the even column in the low half
  std::vector<float> magnitudes_;    // (D_out, blocks)
};

}  // namespace skein
