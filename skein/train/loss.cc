#include "skein/train/loss.h"

#include <algorithm>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/logsumexp.h>
#include <torch/csrc/autograd/autograd.h>

#include "skein/base/check.h"

namespace skein {
namespace {

// logits (c, V) f32, targets (c, 1) -> losses (c, 1); turns logits into the gradient weights * (softmax - one-hot).
at::Tensor losses_and_gradient(at::Tensor& logits, const at::Tensor& targets,
                               const std::optional<at::Tensor>& weights) {
  const at::Tensor normaliser = at::logsumexp(logits, {1}, /*keepdim=*/true);  // (c, 1)
  at::Tensor losses = normaliser - at::gather(logits, 1, targets);
  if (!weights) return losses;
  logits.sub_(normaliser).exp_();
  logits.scatter_add_(1, targets, at::full_like(losses, -1));
  logits.mul_(*weights);
  return losses;
}

}  // namespace

TargetLoss target_loss(const Backbone& backbone, const at::Tensor& hidden, const at::Tensor& targets,
                       const std::optional<at::Tensor>& row_weights, std::int64_t chunk_rows) {
  const std::int64_t num_rows = hidden.size(0);
  SKEIN_CHECK(num_rows > 0 && targets.size(0) == num_rows && chunk_rows > 0);
  std::vector<at::Tensor> losses, gradients;
  for (std::int64_t begin = 0; begin < num_rows; begin += chunk_rows) {
    const std::int64_t count = std::min(chunk_rows, num_rows - begin);
    const at::Tensor chunk = hidden.detach().narrow(0, begin, count);
    const at::Tensor chunk_targets = targets.narrow(0, begin, count).unsqueeze(1);
    std::optional<at::Tensor> weights;
    if (row_weights) weights = row_weights->narrow(0, begin, count).unsqueeze(1);

    // Only the head's own operations are recorded, so that any head (scaled, tied or not) gives its gradient.
    const at::AutoGradMode record(row_weights.has_value());
    const at::Tensor leaf = row_weights ? chunk.detach().requires_grad_(true) : chunk;
    const at::Tensor logits = backbone.logits(leaf);  // (c, V)
    const at::NoGradGuard no_grad;
    at::Tensor scores = logits.detach().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    losses.push_back(losses_and_gradient(scores, chunk_targets, weights).squeeze(1));
    if (!row_weights) continue;
    torch::autograd::backward({logits}, {scores.to(logits.scalar_type())});  // a thawed head gets its gradient too
    gradients.push_back(leaf.grad());
  }
  TargetLoss result;
  result.row_losses = at::cat(losses);
  if (row_weights) result.hidden_gradient = at::cat(gradients);
  return result;
}

}  // namespace skein
