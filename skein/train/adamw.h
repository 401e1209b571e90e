// AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2) with PyTorch's semantics.
#pragma once

#include "skein/train/optimiser.h"

namespace skein {

// m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;
// p <- p - lr wd p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//
// One fused pass over all tensors (libtorch's own kernel, on any device).
class AdamW : public Optimiser {
 public:
  AdamW(std::vector<at::Tensor> parameters, const TrainOptions& options);
  void step(const std::vector<at::Tensor>& gradients, double learning_rate) override;
  std::vector<NamedState> state(const std::vector<std::string>& names) const override;

 private:
  std::vector<at::Tensor> parameters_, first_moments_, second_moments_;
  std::vector<at::Tensor> update_counts_;  // scalars, as the kernel wants them
  double beta1_, beta2_, eps_, weight_decay_;
};

}  // namespace skein
