// Adafactor (Shazeer and Stern, arXiv 1804.04235, algorithms 4 and 5) without a first moment, with the semantics of
// transformers' implementation.
#pragma once

#include "skein/train/optimiser.h"

namespace skein {

// With b = 1 - t^-decay and G = g^2 + 1e-30:
//   tensors of two or more dimensions (factored): R <- b R + (1 - b) mean over columns of G, C the same over rows, of
//   the
//     last two dimensions;  V = R C / mean(R)
//   others, and all if not factored:              V <- b V + (1 - b) G
//   u = g / sqrt(V), divided by max(1, RMS(u) / threshold)
//   p <- p - a wd p - a u,   a = rate, times max(1e-3, RMS(p)) if parameters scale it
// rate: the given one; relative: min(0.01, 1 / sqrt(t)), and the given one is not used.
class Adafactor : public Optimiser {
 public:
  Adafactor(std::vector<at::Tensor> parameters, const TrainOptions& options);
  void step(const std::vector<at::Tensor>& gradients, double learning_rate) override;
  std::vector<NamedState> state(const std::vector<std::string>& names) const override;

 private:
  struct Moments {
    at::Tensor rows, columns;  // factored: (..., m) and (..., n) of a parameter (..., m, n)
    at::Tensor whole;          // else
  };
  at::Tensor update_of(Moments& moments, const at::Tensor& gradient, double kept) const;

  std::vector<at::Tensor> parameters_;
  std::vector<Moments> moments_;
  double decay_, threshold_, weight_decay_;
  bool scales_by_parameter_, relative_;
};

}  // namespace skein
