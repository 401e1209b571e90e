// Root mean square norm (arXiv 1910.07467): y = x / sqrt(mean(x^2) + eps) * w, computed in f32.
#pragma once

#include <ATen/core/Tensor.h>

#include "skein/nn/weight_reader.h"

namespace skein {

struct RmsNorm {
  at::Tensor weight;  // (D) f32, holding values of the compute dtype; Gemma: 1 + w
  double eps = 1e-6;
  // Llama, Qwen and T5 round the normalised row to the compute dtype before they multiply; Gemma rounds once, after.
  bool rounds_before_weight = true;

  // x (..., D) in the compute dtype -> the same shape and dtype. Differentiable in x.
  at::Tensor operator()(const at::Tensor& x) const;
};

// The next norm of the model.
RmsNorm next_norm(WeightReader& weights, const BackboneConfig& config);

}  // namespace skein
