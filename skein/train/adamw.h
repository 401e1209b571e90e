// AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2) with PyTorch's semantics, and clipping by global norm.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/train/options.h"

namespace skein {

// m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;
// p <- p - lr wd p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//
// One fused pass over all tensors (libtorch's own kernel, on any device). The parameters are f32 leaves, shared with
// whoever computes with them; the moments belong to the optimiser.
class AdamW {
 public:
  AdamW(std::vector<at::Tensor> parameters, const TrainOptions& options);
  // gradients: f32, one per parameter, in the same order.
  void step(const std::vector<at::Tensor>& gradients, double learning_rate);

  std::int64_t updates() const { return updates_; }
  const std::vector<at::Tensor>& first_moments() const { return first_moments_; }
  const std::vector<at::Tensor>& second_moments() const { return second_moments_; }
  // Goes on from a saved state: copies the moments in.
  void restore(std::int64_t updates, const std::vector<at::Tensor>& first, const std::vector<at::Tensor>& second);

 private:
  std::vector<at::Tensor> parameters_, first_moments_, second_moments_;
  std::vector<at::Tensor> update_counts_;  // scalars, as the kernel wants them
  std::int64_t updates_ = 0;
  double beta1_, beta2_, eps_, weight_decay_;
};

// The 2-norm over all gradients; scales them in place by max_norm / (norm + 1e-6) if that is below 1 (PyTorch's
// clip_grad_norm_). max_norm 0: only the norm. Not finite if a gradient is not; they are left as they are then.
double clip_by_global_norm(const std::vector<at::Tensor>& gradients, double max_norm);

}  // namespace skein
