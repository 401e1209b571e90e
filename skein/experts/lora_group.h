// The products of training: a frozen group of linears with LoRA branches, one autograd node for all parts. The branches
// share x: A x of all parts is one product, x is kept once, and nothing of the size of an output is kept at all.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/nn/linear.h"

namespace skein {

// The branch of each part of a group. rank 0: none.
struct LoraBranch {
  std::int64_t rank = 0;
  double scale = 1;
};

// y_i = W_i x + s_i B_i A_i x for every part i; gradients for x, a and b.
// x (N, D_in) in the compute type. a (sum of R, D_in) and b (sum of D_out R: each B row by row) usually f32: rounded to
// the compute type, b after its scale, as the bank rounds them. Sums run in f32; a bf16 gradient is rounded once, when
// whole.
std::vector<at::Tensor> lora_group(const LinearGroup& group, const std::vector<LoraBranch>& branches,
                                   const at::Tensor& x, const at::Tensor& a, const at::Tensor& b);

// y_i = W_i x + s_i B_i m_i: the second half of lora_group, for middle values that were made elsewhere. middle (N, sum
// of R) in the compute type; gradients for x (through W alone), middle and b.
std::vector<at::Tensor> expand_group(const LinearGroup& group, const std::vector<LoraBranch>& branches,
                                     const at::Tensor& x, const at::Tensor& middle, const at::Tensor& b);

// y_i = W_i x + g_i B_i A_i x with g_i = sigmoid(v_i . x) (PHATGOOSE, arXiv 2402.05859, section 3.2); gradients for x
// and v. a (sum of R, D_in) and b as above but scaled, both in the compute type; v (branches, D_in) f32, one row for
// each part with a branch. gates, if not null, receives (N, branches) in f32.
std::vector<at::Tensor> gated_lora_group(const LinearGroup& group, const std::vector<LoraBranch>& branches,
                                         const at::Tensor& x, const at::Tensor& a, const at::Tensor& b,
                                         const at::Tensor& v, at::Tensor* gates);

}  // namespace skein
