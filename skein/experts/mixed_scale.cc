#include "skein/experts/mixed_scale.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "skein/base/check.h"

namespace skein {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// (E, H * C) -> (H, E, C)
at::Tensor by_head(const at::Tensor& scaling, std::int64_t heads) {
  return scaling.view({scaling.size(0), heads, -1}).transpose(0, 1);
}

// sum_e p_e l_e: (H, N, C)
at::Tensor mixed(const at::Tensor& weights, const at::Tensor& scaling) {
  return at::bmm(weights.transpose(0, 1), by_head(scaling, weights.size(1)));
}

at::Tensor heads_of(const at::Tensor& y, std::int64_t heads) {  // (N, H * C) -> (H, N, C) f32
  return y.to(at::kFloat).unflatten(1, {heads, -1}).transpose(0, 1);
}
at::Tensor rows_of(const at::Tensor& by_heads, c10::ScalarType dtype) {  // (H, N, C) -> (N, H * C)
  return by_heads.transpose(0, 1).flatten(1).to(dtype);
}

at::Tensor scaled(const at::Tensor& y, const at::Tensor& weights, const at::Tensor& scaling) {
  return rows_of(heads_of(y, weights.size(1)) * mixed(weights, scaling), y.scalar_type());
}

class ScaleByMixture : public torch::autograd::Function<ScaleByMixture> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& y, const at::Tensor& weights,
                            const at::Tensor& scaling) {
    ctx->save_for_backward({y, weights, scaling});
    return scaled(y, weights, scaling);
  }
  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    const tensor_list saved = ctx->get_saved_variables();
    const at::Tensor &y = saved[0], &weights = saved[1], &scaling = saved[2];
    const std::int64_t heads = weights.size(1);
    const at::Tensor grad = heads_of(grads[0], heads);  // (H, N, C)
    at::Tensor grad_y, grad_weights, grad_scaling;
    if (ctx->needs_input_grad(0)) grad_y = rows_of(grad * mixed(weights, scaling), y.scalar_type());
    const at::Tensor grad_mixed = grad * heads_of(y, heads);  // (H, N, C)
    if (ctx->needs_input_grad(1)) {
      grad_weights = at::bmm(grad_mixed, by_head(scaling, heads).transpose(1, 2)).transpose(0, 1);  // (N, H, E)
    }
    if (ctx->needs_input_grad(2)) {
      grad_scaling = at::bmm(weights.permute({1, 2, 0}), grad_mixed).transpose(0, 1).reshape(scaling.sizes());
    }
    return {grad_y, grad_weights, grad_scaling};
  }
};

}  // namespace

at::Tensor scale_by_mixture(const at::Tensor& y, const at::Tensor& weights, const at::Tensor& scaling) {
  SKEIN_CHECK(weights.dim() == 3 && weights.size(0) == y.size(0) && scaling.size(1) == y.size(1) &&
              y.size(1) % weights.size(1) == 0);
  const bool needs_grad =
      at::GradMode::is_enabled() && (y.requires_grad() || weights.requires_grad() || scaling.requires_grad());
  return needs_grad ? ScaleByMixture::apply(y, weights, scaling) : scaled(y, weights, scaling);
}

}  // namespace skein
