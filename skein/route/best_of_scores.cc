#include "skein/route/best_of_scores.h"

#include <limits>

#include <ATen/ATen.h>

namespace skein {

Mixture best_of_scores(const at::Tensor& scores, std::int64_t top_k, const RouterOptions& options) {
  const float nothing = -std::numeric_limits<float>::infinity();
  const at::Tensor clean = at::nan_to_num(scores, nothing, std::numeric_limits<float>::infinity(), nothing);
  const auto [sorted, order] = at::sort(clean, /*stable=*/true, /*dim=*/1, /*descending=*/true);
  const at::Tensor best = sorted.narrow(1, 0, top_k);
  const at::Tensor p = at::softmax(sorted, 1).narrow(1, 0, top_k);
  at::Tensor weights = options.softmax_over_chosen ? at::softmax(best, 1) : p;
  if (options.top_p < 1) weights = at::where(p.cumsum(1) - p < options.top_p, weights, at::zeros_like(weights));
  const double epsilon = options.softmax_over_chosen ? 0 : 1e-6;
  weights = weights / (weights.sum(1, /*keepdim=*/true) + epsilon);
  // Rows where nothing can be chosen: their softmax is NaN.
  return Mixture{order.narrow(1, 0, top_k).to(at::kInt), at::nan_to_num(weights, 0.0)};
}

}  // namespace skein
