#include "skein/train/optimiser.h"

#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>

#include "skein/base/check.h"
#include "skein/train/adafactor.h"
#include "skein/train/adamw.h"

namespace skein {

std::unique_ptr<Optimiser> make_optimiser(std::vector<at::Tensor> parameters, const TrainOptions& options) {
  switch (options.optimiser) {
    case OptimiserKind::kAdamW:
      return std::make_unique<AdamW>(std::move(parameters), options);
    case OptimiserKind::kAdafactor:
      return std::make_unique<Adafactor>(std::move(parameters), options);
  }
  SKEIN_CHECK(false);
}

double clip_by_global_norm(const std::vector<at::Tensor>& gradients, double max_norm) {
  const at::NoGradGuard no_grad;
  const auto norm = at::linalg_vector_norm(at::stack(at::_foreach_norm(gradients, 2))).item<double>();
  const double factor = max_norm / (norm + 1e-6);
  if (max_norm > 0 && std::isfinite(norm) && factor < 1) at::_foreach_mul_(gradients, factor);
  return norm;
}

}  // namespace skein
