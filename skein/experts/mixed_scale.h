// y scaled by a mixture of (IA)3 vectors: y' = y * sum_e p_e l_e, merged before they are applied (exact, since scaling
// is linear in l; arXiv 2309.05444, section 3).
#pragma once

#include <ATen/core/Tensor.h>

namespace skein {

// y (N, H * C) in the compute dtype, weights (N, H, E) f32, scaling (E, H * C) f32 -> the shape and dtype of y. Each of
// the H heads has a mixture of its own; H = 1: one for the whole row. Computed in f32, rounded once. Differentiable in
// all three; keeps no f32 copy of y.
at::Tensor scale_by_mixture(const at::Tensor& y, const at::Tensor& weights, const at::Tensor& scaling);

}  // namespace skein
