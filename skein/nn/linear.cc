#include "skein/nn/linear.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "skein/base/check.h"
#include "skein/nn/kernels/row_dots.h"
#include "skein/nn/kernels/tensor_rows.h"
#include "skein/nn/quantised_weight.h"

namespace skein {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// x W^T + b with the project's own kernel: as fast as the vendors' where rows are many, at the speed of memory where
// they are few, and the same bits for a row whatever stands beside it.
at::Tensor dot_rows(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                    const std::function<void()>& beside = nullptr) {
  const at::Tensor x = with_plain_rows(input);
  const std::int64_t num_rows = x.size(0), depth = x.size(1), outputs = weight.size(0);
  at::Tensor y = at::empty({num_rows, outputs}, x.options());
  const RowDots shape{num_rows, depth, x.stride(0), y.stride(0)};
  const auto multiply = [&](std::int64_t begin, std::int64_t end) {
    if (x.scalar_type() == c10::ScalarType::Float) {
      row_dots_f32(shape, x.const_data_ptr<float>(), weight.const_data_ptr<float>(), data_or_null<float>(bias),
                   y.mutable_data_ptr<float>(), begin, end);
    } else {
      row_dots_bf16(shape, data_or_null<std::uint16_t>(x), data_or_null<std::uint16_t>(weight),
                    data_or_null<std::uint16_t>(bias), static_cast<std::uint16_t*>(y.mutable_data_ptr()), begin, end);
    }
  };
  parallel_outputs(shape, outputs, 4, multiply, beside);
  return y;
}

// Keeps the few bits for the backward pass, not the numbers made of them.
struct KeptWeight : torch::CustomClassHolder {
  std::shared_ptr<const QuantisedWeight> weight;
};
class QuantisedProduct : public torch::autograd::Function<QuantisedProduct> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const std::shared_ptr<const QuantisedWeight>& weight,
                            const std::optional<at::Tensor>& bias) {
    auto kept = c10::make_intrusive<KeptWeight>();
    kept->weight = weight;
    ctx->saved_data["weight"] = c10::IValue::make_capsule(std::move(kept));
    return weight->product(x, bias.value_or(at::Tensor()));
  }
  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    const auto capsule = ctx->saved_data["weight"].toCapsule();
    at::Tensor grad;
    static_cast<const KeptWeight&>(*capsule).weight->add_gradient(grad, grads[0]);
    return {grad, at::Tensor(), at::Tensor()};
  }
};

class FrozenProduct : public torch::autograd::Function<FrozenProduct> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    ctx->save_for_backward({weight});
    return dot_rows(x, weight, bias.value_or(at::Tensor()));
  }
  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    return {at::mm(grads[0], ctx->get_saved_variables()[0]), at::Tensor(), at::Tensor()};
  }
};

bool takes_own_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const bool thawed = weight.requires_grad() || (bias.defined() && bias.requires_grad());  // train/thaw.h
  return !thawed && has_kernels(x) && x.scalar_type() == weight.scalar_type() && x.dim() == 2 && weight.is_contiguous();
}

// y (N, sum of D_out), part by part.
std::vector<at::Tensor> outputs_of(const LinearGroup& group, const at::Tensor& y) {
  if (group.parts.size() == 1) return {y};
  std::vector<std::int64_t> widths;
  for (const FrozenLinear& part : group.parts) widths.push_back(part.weight.size(0));
  return at::split_with_sizes(y, widths, 1);  // its gradient is one concatenation; narrow()'s would fill y twice
}

}  // namespace

LinearGroup group_of(at::Tensor weight, at::Tensor bias, const std::vector<std::int64_t>& rows,
                     const std::vector<int>& slot_idxs) {
  LinearGroup group{std::move(weight), std::move(bias), {}};
  std::int64_t row = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    group.parts.push_back(FrozenLinear{slot_idxs[i], group.weight.narrow(0, row, rows[i]),
                                       group.bias.defined() ? group.bias.narrow(0, row, rows[i]) : at::Tensor()});
    row += rows[i];
  }
  SKEIN_CHECK(row == group.weight.size(0));
  return group;
}

LinearGroup make_linear_group(const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
                              const std::vector<int>& slot_idxs) {
  SKEIN_CHECK(!weights.empty() && weights.size() == biases.size() && weights.size() == slot_idxs.size());
  std::vector<std::int64_t> rows;
  bool any_bias = false;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    rows.push_back(weights[i].size(0));
    any_bias |= biases[i].defined();
  }
  at::Tensor bias;
  if (any_bias) {
    std::vector<at::Tensor> all;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      all.push_back(biases[i].defined() ? biases[i] : at::zeros({rows[i]}, weights[i].options()));
    }
    bias = at::cat(all);
  }
  return group_of(at::cat(weights), std::move(bias), rows, slot_idxs);
}

void quantise(LinearGroup& group, c10::ScalarType dtype, const QuantisedOptions& options) {
  const auto quantised = std::make_shared<const QuantisedWeight>(group.weight, options);
  std::vector<std::int64_t> rows;
  std::vector<int> slot_idxs;
  for (const FrozenLinear& part : group.parts) {
    rows.push_back(part.weight.size(0));
    slot_idxs.push_back(part.slot_idx);
  }
  group = group_of(at::empty(group.weight.sizes(), at::TensorOptions().dtype(dtype).device(at::kMeta)), group.bias,
                   rows, slot_idxs);
  group.quantised = quantised;
}

std::vector<at::Tensor> apply_frozen(const LinearGroup& group, const at::Tensor& x) {
  const at::Tensor y =
      group.quantised ? quantised_linear(x, group.quantised, group.bias) : frozen_linear(x, group.weight, group.bias);
  return outputs_of(group, y);
}

std::vector<at::Tensor> apply_frozen(const LinearGroup& group, const at::Tensor& x,
                                     const std::function<void()>& beside) {
  const bool differentiates = at::GradMode::is_enabled() && x.requires_grad();
  if (!differentiates && group.quantised) return outputs_of(group, group.quantised->product(x, group.bias, beside));
  if (!differentiates && takes_own_product(x, group.weight, group.bias)) {
    return outputs_of(group, dot_rows(x, group.weight, group.bias, beside));
  }
  beside();
  return apply_frozen(group, x);
}

at::Tensor frozen_gradient(const LinearGroup& group, const std::vector<at::Tensor>& grads) {
  at::Tensor sum;  // (N, D_in)
  std::int64_t row = 0;
  for (std::size_t i = 0; i < group.parts.size(); ++i) {
    const at::Tensor& grad = grads[i];
    const std::int64_t rows = group.parts[i].weight.size(0);
    if (grad.defined()) {
      if (group.quantised) {
        group.quantised->add_gradient(sum, grad, row);
      } else if (sum.defined()) {
        sum.addmm_(grad, group.parts[i].weight);
      } else {
        sum = at::mm(grad, group.parts[i].weight);
      }
    }
    row += rows;
  }
  return sum;
}

at::Tensor quantised_linear(const at::Tensor& x, const std::shared_ptr<const QuantisedWeight>& weight,
                            const at::Tensor& bias) {
  const bool needs_grad = at::GradMode::is_enabled() && x.requires_grad();
  return needs_grad ? QuantisedProduct::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt)
                    : weight->product(x, bias);
}

at::Tensor frozen_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (!takes_own_product(x, weight, bias)) return at::linear(x, weight, bias);
  const bool needs_grad = at::GradMode::is_enabled() && x.requires_grad();
  return needs_grad ? FrozenProduct::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt)
                    : dot_rows(x, weight, bias);
}

}  // namespace skein
