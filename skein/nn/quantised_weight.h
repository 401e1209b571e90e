// A frozen matrix in 8 or 4 bits per number (--base-bits): less memory, and less to read for each token.
//
// Each row is cut into blocks with one scale s each, an f16:
//   8 bits   blocks of 32, w' = q s, s = max |w| / 127, q = round(w / s): GGUF's Q8_0, whose blocks stay as they are
//   4 bits   blocks of 64, w' = s times the nearest of NormalFloat's 16 levels to w / s, s = max |w|
//            (arXiv 2305.14314, appendix E)
// So 8.5 or 4.25 bits in all. As in GGUF, a block of numbers all below some 1e-6 (8 bits) or 1e-8 (4 bits) becomes 0.
// Products have the bits of those with the restored numbers in x's type (kernels/quantised_rows.h). CPU.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "skein/nn/kernels/quantised_rows.h"

namespace skein {

class QuantisedWeight {
 public:
  // weight (D_out, D_in): finite floats on the CPU. bits: 8 or 4. memory: bytes_of() bytes (u8), written and kept;
  // undefined: some of its own.
  QuantisedWeight(const at::Tensor& weight, int bits, const at::Tensor& memory = {});
  static std::int64_t bytes_of(std::int64_t rows, std::int64_t columns, int bits);

  at::Tensor rows(std::int64_t first, std::int64_t count, c10::ScalarType dtype) const;  // (count, D_in)
  at::Tensor rows(const at::Tensor& ids, c10::ScalarType dtype) const;  // ids (N) i64, within range -> (N, D_in)
  // x (N, D_in) f32 or bf16, bias (D_out) of x's type or undefined -> (N, D_out). No gradient.
  at::Tensor product(const at::Tensor& x, const at::Tensor& bias) const;
  // Adds to the gradient of x (N, D_in; undefined: begins it) what comes from columns [first, first + grad.size(1)) of
  // the product's.
  void add_gradient(at::Tensor& sum, const at::Tensor& grad, std::int64_t first = 0) const;
  std::int64_t num_rows() const { return num_rows_; }
  std::int64_t num_bytes() const { return bytes_of(num_rows_, num_columns_, bits_); }

 private:
  QuantisedRows kernel_rows() const;

  int bits_;
  std::int64_t num_rows_, num_columns_;
  at::Tensor memory_;  // codes (D_out, blocks, 32 bytes), then scales (D_out, blocks)
};

}  // namespace skein
