#include "skein/nn/norm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "skein/nn/kernels/tensor_rows.h"

namespace skein {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

NormShape shape_of(const at::Tensor& x, double eps, bool rounds_before_weight) {
  return {element_of(x), x.size(-1), static_cast<float>(eps), rounds_before_weight};
}

// x (N, D) or (N, H, D): each last dimension is a row; rows of a token are contiguous.
at::Tensor norm_rows(const at::Tensor& input, const at::Tensor& weight, double eps, bool rounds_before_weight) {
  const at::Tensor x = with_plain_rows(input);
  const NormShape shape = shape_of(x, eps, rounds_before_weight);
  at::Tensor y = at::empty(x.sizes(), x.options());
  const std::int64_t per_token = x.numel() == 0 ? 0 : x[0].numel() / shape.width;
  parallel_rows(x.size(0), per_token * shape.width, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t token = begin; token < end && per_token > 1; ++token) {
      const ConstRows heads{static_cast<const char*>(x.const_data_ptr()) + token * x.stride(0) * x.element_size(),
                            shape.width};
      const MutableRows out{static_cast<char*>(y.mutable_data_ptr()) + token * y.stride(0) * y.element_size(),
                            shape.width};
      rms_norm_rows(shape, heads, weight.const_data_ptr<float>(), out, 0, per_token);
    }
    if (per_token == 1)
      rms_norm_rows(shape, rows_of(x), weight.const_data_ptr<float>(), mutable_rows_of(y), begin, end);
  });
  return y;
}

// Keeps x alone, which the residual stream holds anyway.
class FusedNorm : public torch::autograd::Function<FusedNorm> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, double eps,
                            bool rounds_before_weight) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["eps"] = eps;
    return norm_rows(x, weight, eps, rounds_before_weight);
  }
  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    const tensor_list saved = ctx->get_saved_variables();
    const std::int64_t width = saved[0].size(-1);
    const at::Tensor x = saved[0].reshape({-1, width}), grad = grads[0].reshape({-1, width});
    at::Tensor out = at::empty(x.sizes(), x.options());
    const NormShape shape = shape_of(x, ctx->saved_data["eps"].toDouble(), false);
    parallel_rows(x.size(0), width, [&](std::int64_t begin, std::int64_t end) {
      rms_norm_rows_backward(shape, rows_of(x), saved[1].const_data_ptr<float>(), rows_of(grad), mutable_rows_of(out),
                             begin, end);
    });
    return {out.view(saved[0].sizes()), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

RmsNorm next_norm(WeightReader& weights, const BackboneConfig& config) {
  at::Tensor weight = weights.next(TensorRole::kNorm).to(c10::ScalarType::Float);
  if (config.norm_adds_one) weight = weight + 1;
  weights.replace_last(weight, config.norm_adds_one ? 1 : 0);
  return RmsNorm{weight, config.norm_eps, !config.norm_adds_one};
}

at::Tensor RmsNorm::operator()(const at::Tensor& x) const {
  if (has_kernels(x) && !weight.requires_grad()) {  // a thawed norm (train/thaw.h) wants its own gradient too
    const bool needs_grad = at::GradMode::is_enabled() && x.requires_grad();
    return needs_grad ? FusedNorm::apply(x, weight, eps, rounds_before_weight)
                      : norm_rows(x, weight, eps, rounds_before_weight);
  }
  const at::Tensor wide = x.to(c10::ScalarType::Float);
  const at::Tensor normal = wide * at::rsqrt(wide.square().mean(-1, true) + eps);
  return rounds_before_weight ? normal.to(x.scalar_type()) * weight.to(x.scalar_type())
                              : (normal * weight).to(x.scalar_type());
}

}  // namespace skein
