// The element-wise half of a feed-forward layer.
#pragma once

#include <ATen/core/Tensor.h>

#include "skein/spec/backbone_config.h"

namespace skein {

// act(x), any shape.
at::Tensor activate(Activation activation, const at::Tensor& x);
// act(gate) * up, (N, F) each, rows may be strided (arXiv 2002.05202: SwiGLU, GEGLU). Differentiable in both.
at::Tensor gate_with(Activation activation, const at::Tensor& gate, const at::Tensor& up);

}  // namespace skein
