#include "skein/experts/mixture_router.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "skein/base/check.h"
#include "skein/nn/packed_batch.h"

namespace skein {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// 1 for the k largest of each row, else 0.
at::Tensor chosen(const at::Tensor& probabilities, int top_k) {
  const at::NoGradGuard no_grad;
  const at::Tensor mask = at::zeros_like(probabilities);
  // Stable, so that of equals the lower index stays.
  const at::Tensor order = std::get<1>(at::sort(probabilities, /*stable=*/true, /*dim=*/-1, /*descending=*/true));
  return mask.scatter_(-1, order.narrow(-1, 0, top_k), 1);
}

class RouterProduct : public torch::autograd::Function<RouterProduct> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight) {
    ctx->save_for_backward({x, weight});
    return at::linear(x.to(at::kFloat), weight);
  }
  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    const tensor_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &grad = grads[0];
    at::Tensor grad_x;
    if (ctx->needs_input_grad(0)) grad_x = at::mm(grad, weight).to(x.scalar_type());
    return {grad_x, at::mm(grad.t(), x.to(at::kFloat))};
  }
};

// The two losses, unweighted but as shares of the step's means: 0-dimensional f32.
std::pair<at::Tensor, at::Tensor> losses_of(const at::Tensor& logits, const RoutingRule& rule,
                                            const at::Tensor& sequence_of, std::int64_t num_sequences,
                                            std::int64_t num_step_rows, const RouterLossWeights& weights) {
  const std::int64_t experts = logits.size(1);
  const at::Tensor p = at::softmax(logits, -1);
  const at::Tensor mask = rule.top_k > 0 ? chosen(p, rule.top_k) : at::ones_like(p);
  const at::Tensor none = at::zeros({num_sequences, experts}, p.options().requires_grad(false));
  const at::Tensor rows =
      at::zeros({num_sequences}, none.options()).index_add(0, sequence_of, at::ones_like(mask.select(1, 0)));
  const at::Tensor counts = rows.clamp_min(1).unsqueeze(1);                          // (sequences, 1)
  const at::Tensor shares = none.index_add(0, sequence_of, mask.detach()) / counts;  // f
  const at::Tensor means = none.index_add(0, sequence_of, p) / counts;               // P
  const double over = static_cast<double>(weights.num_routers);
  const at::Tensor balance =
      (shares * means).sum() * (static_cast<double>(experts) / (static_cast<double>(weights.num_sequences) * over));
  const at::Tensor z_loss =
      at::logsumexp(logits, {-1}).square().sum() * (1 / (static_cast<double>(num_step_rows) * over));
  return {balance, z_loss};
}

class AddRouterLosses : public torch::autograd::Function<AddRouterLosses> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits, const at::Tensor& gradient) {
    ctx->save_for_backward({gradient});
    return logits.clone();
  }
  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    const at::Tensor extra = ctx->get_saved_variables()[0];
    return {grads[0].defined() ? grads[0] + extra : extra, at::Tensor()};
  }
};

}  // namespace

at::Tensor routing_weights(const at::Tensor& logits, const RoutingRule& rule) {
  const at::Tensor p = at::softmax(logits, -1);
  if (rule.top_k == 0) return p;
  const at::Tensor kept = p * chosen(p, rule.top_k);
  return rule.renormalises ? kept / kept.sum(-1, /*keepdim=*/true) : kept;
}

at::Tensor router_logits(const at::Tensor& x, const at::Tensor& weight) {
  const bool needs_grad = at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad());
  return needs_grad ? RouterProduct::apply(x, weight) : frozen_linear(x.to(at::kFloat), weight.detach(), {});
}

at::Tensor with_router_losses(const at::Tensor& logits, const RoutingRule& rule, const SequenceRows& rows,
                              std::int64_t num_step_rows, const RouterLossWeights& weights, RouterLosses* values) {
  const std::int64_t per_row = logits.size(0) / rows.sequence_of.size(0);
  SKEIN_CHECK(per_row * rows.sequence_of.size(0) == logits.size(0));
  const at::Tensor sequence_of = per_row == 1 ? rows.sequence_of : rows.sequence_of.repeat_interleave(per_row);
  const bool wants_gradient = at::GradMode::is_enabled() && (weights.balance != 0 || weights.z_loss != 0);
  if (!wants_gradient && values == nullptr) return logits;
  at::Tensor gradient;
  {
    const at::AutoGradMode record(wants_gradient);
    const at::Tensor leaf = logits.detach().requires_grad_(wants_gradient);
    const auto [balance, z_loss] = losses_of(leaf, rule, sequence_of, static_cast<std::int64_t>(rows.segments.size()),
                                             num_step_rows * per_row, weights);
    if (values != nullptr) {
      values->balance += balance.item<double>();
      values->z_loss += z_loss.item<double>();
    }
    if (wants_gradient) {
      const at::Tensor total = balance * weights.balance + z_loss * weights.z_loss;
      gradient = torch::autograd::grad({total}, {leaf}).front();
    }
  }
  return wants_gradient ? AddRouterLosses::apply(logits, gradient) : logits;
}

void RouterRecord::add(int router_idx, const at::Tensor& logits, const at::Tensor& weights) {
  const at::NoGradGuard no_grad;
  Router& router = routers[static_cast<std::size_t>(router_idx)];
  const at::Tensor flat = logits.detach().reshape({-1, logits.size(-1)});  // (rows, E)
  const at::Tensor kept = weights.detach().reshape({-1, weights.size(-1)});
  const at::Tensor load = (kept / kept.sum(-1, /*keepdim=*/true).clamp_min(1e-30)).sum(0).to(at::kCPU, at::kDouble);
  router.load = router.load.defined() ? router.load + load : load;
  const at::Tensor log_p = at::log_softmax(flat, -1);
  router.entropy -= (log_p.exp() * log_p).sum().item<double>();
  router.num_rows += flat.size(0);
}

void RouterRecord::add(const RouterRecord& other) {
  SKEIN_CHECK(other.routers.size() == routers.size());
  for (std::size_t i = 0; i < routers.size(); ++i) {
    const Router& from = other.routers[i];
    if (from.num_rows == 0) continue;
    routers[i].load = routers[i].load.defined() ? routers[i].load + from.load : from.load;
    routers[i].entropy += from.entropy;
    routers[i].num_rows += from.num_rows;
  }
  losses.balance += other.losses.balance;
  losses.z_loss += other.losses.z_loss;
}

}  // namespace skein
