#include "skein/experts/mixed_lora.h"

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include "skein/base/check.h"

namespace skein {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What both directions need to know of the call; kept with the node.
struct CallFacts : torch::CustomClassHolder {
  LinearGroup group;  // its tensors are shared, not copied
  std::vector<std::size_t> parts;
  RoutingRule rule;
  double scale = 1;
  std::int64_t experts = 0, rank = 0;  // of every part
};

constexpr std::size_t kParameters = 3;  // a, b, router of each part, in the list of parameters

// (E, D_out, R) -> (D_out, E R) in `dtype`.
at::Tensor side_by_side(const at::Tensor& b, c10::ScalarType dtype) {
  const at::Tensor joined = at::empty({b.size(1), b.size(0), b.size(2)}, b.options().dtype(dtype).requires_grad(false));
  joined.copy_(b.permute({1, 0, 2}));
  return joined.view({b.size(1), -1});
}

// The gradient of the logits from that of the weights, which are softmax(logits) cut and perhaps divided by `rule`.
at::Tensor through_routing(const at::Tensor& grad_weights, const at::Tensor& logits, const at::Tensor& weights,
                           const RoutingRule& rule) {
  const at::Tensor p = rule.top_k == 0 ? weights : at::softmax(logits, -1);
  at::Tensor grad = grad_weights;
  if (rule.top_k > 0) {
    const at::Tensor kept = weights > 0;
    if (rule.renormalises) {
      const at::Tensor sum = (p * kept).sum(-1, /*keepdim=*/true);
      grad = (grad - (grad * weights).sum(-1, /*keepdim=*/true)) / sum;
    }
    grad = grad * kept;
  }
  return p * (grad - (grad * p).sum(-1, /*keepdim=*/true));
}

struct MixedLoraFunction : torch::autograd::Function<MixedLoraFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, at::TensorList parameters,
                               const c10::intrusive_ptr<CallFacts>& facts, MixedRouting* routing) {
    // The outputs may share one tensor; autograd must not see them as views of each other.
    const at::AutoDispatchBelowADInplaceOrView guard;
    const auto parts = static_cast<std::int64_t>(facts->parts.size());
    std::vector<at::Tensor> all_a, all_b, all_routers;
    for (std::size_t i = 0; i < facts->parts.size(); ++i) {
      all_a.push_back(parameters[kParameters * i].flatten(0, 1).to(x.scalar_type()));
      all_b.push_back(side_by_side(parameters[kParameters * i + 1], x.scalar_type()));
      all_routers.push_back(parameters[kParameters * i + 2]);
    }
    const at::Tensor a = parts == 1 ? all_a.front() : at::cat(all_a);                    // (P E R, D_in)
    const at::Tensor routers = parts == 1 ? all_routers.front() : at::cat(all_routers);  // (P E, D_in)
    const at::Tensor logits = at::linear(x.to(at::kFloat), routers).view({-1, parts, facts->experts});
    const at::Tensor weights = routing_weights(logits, facts->rule);  // (N, P, E)
    const at::Tensor z = at::linear(x, a).view({-1, parts, facts->experts, facts->rank});
    const at::Tensor middle = z * (weights * facts->scale).unsqueeze(-1).to(x.scalar_type());
    variable_list y = apply_frozen(facts->group, x);
    for (std::int64_t i = 0; i < parts; ++i) {
      y[facts->parts[i]].addmm_(middle.select(1, i).flatten(1), all_b[i].t());
      if (routing == nullptr) continue;
      routing->logits.push_back(logits.select(1, i).contiguous());
      routing->weights.push_back(weights.select(1, i).contiguous());
    }
    variable_list saved{x, a, routers, logits, weights, z};
    saved.insert(saved.end(), all_b.begin(), all_b.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["facts"] = c10::IValue::make_capsule(facts);
    ctx->set_materialize_grads(false);
    return y;
  }

  // With h = B^T dL/dy: dL/dp = s sum_r h z, dL/dz = s p h.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto capsule = ctx->saved_data["facts"].toCapsule();
    const CallFacts& facts = static_cast<const CallFacts&>(*capsule);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &a = saved[1], &routers = saved[2], &logits = saved[3], &weights = saved[4];
    const at::Tensor& z = saved[5];
    const auto parts = static_cast<std::int64_t>(facts.parts.size());
    const auto dtype = x.scalar_type();
    const std::int64_t ranks = facts.experts * facts.rank;

    const at::Tensor h = at::zeros_like(z);                           // (N, P, E, R)
    const at::Tensor scaled = (weights * facts.scale).unsqueeze(-1);  // (N, P, E, 1) f32
    variable_list result(1 + kParameters * facts.parts.size() + 2);
    const bool wants_b = ctx->needs_input_grad(2);
    const at::Tensor middle = wants_b ? z * scaled.to(dtype) : at::Tensor();
    for (std::int64_t i = 0; i < parts; ++i) {
      const at::Tensor& grad = grads[facts.parts[i]];
      if (!grad.defined()) continue;
      h.select(1, i).copy_(at::mm(grad, saved[6 + i]).view({-1, facts.experts, facts.rank}));
      if (!wants_b) continue;
      const at::Tensor grad_b = at::mm(grad.t(), middle.select(1, i).flatten(1));  // (D_out, E R)
      const at::Tensor own = at::empty({facts.experts, grad.size(1), facts.rank}, x.options().dtype(at::kFloat));
      own.copy_(grad_b.view({-1, facts.experts, facts.rank}).permute({1, 0, 2}));
      result[1 + kParameters * i + 1] = own;
    }
    const at::Tensor grad_weights = (h.to(at::kFloat) * z).sum(-1) * facts.scale;
    const at::Tensor grad_logits = through_routing(grad_weights, logits, weights, facts.rule).flatten(1);  // (N, P E)
    const at::Tensor grad_z = (h * scaled.to(dtype)).flatten(1);                                           // (N, P E R)
    if (ctx->needs_input_grad(1)) {
      const at::Tensor grad_a = at::mm(grad_z.t(), x).to(at::kFloat);  // (P E R, D_in)
      for (std::int64_t i = 0; i < parts; ++i) {
        result[1 + kParameters * i] = grad_a.narrow(0, i * ranks, ranks).view({facts.experts, facts.rank, -1});
      }
    }
    if (ctx->needs_input_grad(3)) {
      const at::Tensor grad_routers = at::mm(grad_logits.t(), x.to(at::kFloat));  // (P E, D_in)
      for (std::int64_t i = 0; i < parts; ++i) {
        result[1 + kParameters * i + 2] = grad_routers.narrow(0, i * facts.experts, facts.experts);
      }
    }
    if (ctx->needs_input_grad(0)) {
      result[0] = frozen_gradient(facts.group, grads);
      if (!result[0].defined()) result[0] = at::zeros_like(x);
      result[0].addmm_(grad_z, a);
      result[0].addmm_(grad_logits.to(dtype), routers.to(dtype));
    }
    return result;
  }
};

}  // namespace

std::vector<at::Tensor> mixed_lora_group(const LinearGroup& group, const std::vector<MixedExperts>& experts,
                                         const RoutingRule& rule, double scale, const at::Tensor& x,
                                         MixedRouting* routing) {
  SKEIN_CHECK(!experts.empty());
  auto facts = c10::make_intrusive<CallFacts>();
  facts->group = group;
  facts->rule = rule;
  facts->scale = scale;
  facts->experts = experts.front().a.size(0);
  facts->rank = experts.front().a.size(1);
  std::vector<at::Tensor> parameters;
  for (const MixedExperts& part : experts) {
    facts->parts.push_back(part.part);
    parameters.insert(parameters.end(), {part.a, part.b, part.router});
  }
  return MixedLoraFunction::apply(x, at::TensorList(parameters), facts, routing);
}

}  // namespace skein
