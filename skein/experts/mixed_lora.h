// MoLoRA's products of training: the linears that read one input, the LoRA experts of each and their routers, as one
// autograd node. A of all experts is one product, and so is B; nothing of the size of an output is kept.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/experts/mixture_router.h"
#include "skein/nn/linear.h"

namespace skein {

// The experts of one part of a group: f32.
struct MixedExperts {
  std::size_t part = 0;  // of the group
  at::Tensor a, b;       // (E, R, D_in), (E, D_out, R)
  at::Tensor router;     // (E, D_in)
};

// What the routers did, one per MixedExperts: (N, E) f32.
struct MixedRouting {
  std::vector<at::Tensor> logits, weights;
};

// y_i = W_i x + s sum_e p_e B_e A_e x with p = softmax(W_g x) by `rule` (arXiv 2309.05444, section 3.2), for the parts
// that have experts, W_i x for the others. x (N, D_in) in the compute type; A and B are rounded to it, logits are
// summed and softmax is taken in f32. Gradients for x, A, B and W_g, those that ask. routing: may be null.
std::vector<at::Tensor> mixed_lora_group(const LinearGroup& group, const std::vector<MixedExperts>& experts,
                                         const RoutingRule& rule, double scale, const at::Tensor& x,
                                         MixedRouting* routing);

}  // namespace skein
