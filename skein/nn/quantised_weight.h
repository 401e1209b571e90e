// A frozen matrix in 8 or 4 bits per number (--base-bits): less memory, and less to read for each token.
//
// A number is an integer times its block's scale s, an f16: max |w| / 127 over the block.
//   8 bits   blocks of 32, w' = q s, q = round(w / s): GGUF's Q8_0, whose blocks stay as they are
//   4 bits   blocks of 64, w' = s times the nearest of 16 levels to w / s: NormalFloat's (arXiv 2305.14314, appendix
//   E),
//            times 127 and rounded
// So 8.5 or 4.25 bits in all. As in GGUF, a block of numbers all below some 4e-6 becomes 0.
//
// Products with rows of x are those with the numbers w' in x's type; or, with eight_bit_inputs and x in bf16, x too is
// rounded to integers in blocks of 32 (kernels/quantised_rows.h), as llama.cpp does: about as far off again as w' is
// from w in 8 bits, and much faster. Either way a row of x gives the same bits in any company. CPU.
#pragma once

#include <cstdint>
#include <functional>

#include <ATen/core/Tensor.h>

namespace skein {

struct QuantisedRows;

struct QuantisedOptions {
  int bits = 8;                   // or 4
  bool eight_bit_inputs = false;  // for passes without a gradient
  at::Tensor memory;              // bytes_of() bytes (u8), written and kept; undefined: some of its own
};

class QuantisedWeight {
 public:
  // weight (D_out, D_in): finite floats on the CPU.
  QuantisedWeight(const at::Tensor& weight, const QuantisedOptions& options);
  static std::int64_t bytes_of(std::int64_t rows, std::int64_t columns, int bits);

  at::Tensor rows(std::int64_t first, std::int64_t count, c10::ScalarType dtype) const;  // (count, D_in)
  at::Tensor rows(const at::Tensor& ids, c10::ScalarType dtype) const;  // ids (N) i64, within range -> (N, D_in)
  // x (N, D_in) f32 or bf16, bias (D_out) of x's type or undefined -> (N, D_out). No gradient. beside: as
  // apply_frozen's.
  at::Tensor product(const at::Tensor& x, const at::Tensor& bias, const std::function<void()>& beside = nullptr) const;
  // Adds to the gradient of x (N, D_in; undefined: begins it) what comes from columns [first, first + grad.size(1)) of
  // the product's.
  void add_gradient(at::Tensor& sum, const at::Tensor& grad, std::int64_t first = 0) const;
  std::int64_t num_rows() const { return num_rows_; }
  std::int64_t num_bytes() const { return bytes_of(num_rows_, num_columns_, bits_); }

 private:
  QuantisedRows kernel_rows() const;

  int bits_;
  bool eight_bit_inputs_;
  std::int64_t num_rows_, num_columns_;
  at::Tensor memory_;  // the tiles, then their scales
};

}  // namespace skein
