#include "skein/nn/linear.h"

#include <atomic>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "skein/base/check.h"
#include "skein/nn/kernels/row_dots.h"
#include "skein/nn/kernels/tensor_rows.h"

namespace skein {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

template <typename T>
const T* data_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<const T*>(tensor.const_data_ptr()) : nullptr;
}

// The calling thread begins with `beside`; body(first, last) over pieces of [0, size) goes to whoever is free.
template <class Body>
void share_out_beside(const std::function<void()>& beside, std::int64_t size, std::int64_t grain, const Body& body) {
  const std::int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const std::int64_t piece = std::max(grain, size / (threads * 8) + 1);
  std::atomic<std::int64_t> next = 0;
  at::parallel_for(0, threads, 1, [&](std::int64_t first, std::int64_t) {
    if (first == 0) beside();
    for (std::int64_t at = next.fetch_add(piece); at < size; at = next.fetch_add(piece)) {
      body(at, std::min(size, at + piece));
    }
  });
}

// x W^T + b with the project's own kernel: as fast as the vendors' where rows are many, at the speed of memory where
// they are few, and the same bits for a row whatever stands beside it.
at::Tensor dot_rows(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                    const std::function<void()>& beside = nullptr) {
  const at::Tensor x = with_plain_rows(input);
  const std::int64_t num_rows = x.size(0), depth = x.size(1), outputs = weight.size(0);
  at::Tensor y = at::empty({num_rows, outputs}, x.options());
  // Each thread takes a range of outputs: it reads its part of the weights once, and all of x.
  const std::int64_t grain =
      std::max<std::int64_t>(1, (1 << 15) / std::max<std::int64_t>(1, depth * 4 * std::min<std::int64_t>(num_rows, 8)));
  const auto product = [&](std::int64_t first, std::int64_t last) {
    const RowDots shape{num_rows, depth, x.stride(0), y.stride(0)};
    const std::int64_t begin = 4 * first, end = std::min(4 * last, outputs);
    if (x.scalar_type() == c10::ScalarType::Float) {
      row_dots_f32(shape, x.const_data_ptr<float>(), weight.const_data_ptr<float>(), data_or_null<float>(bias),
                   y.mutable_data_ptr<float>(), begin, end);
    } else {
      row_dots_bf16(shape, data_or_null<std::uint16_t>(x), data_or_null<std::uint16_t>(weight),
                    data_or_null<std::uint16_t>(bias), static_cast<std::uint16_t*>(y.mutable_data_ptr()), begin, end);
    }
  };
  if (beside) {
    share_out_beside(beside, (outputs + 3) / 4, grain, product);
  } else {
    at::parallel_for(0, (outputs + 3) / 4, grain, product);
  }
  return y;
}

// The numbers of a group's weight, or of one part's: shared, or made for this use.
at::Tensor numbers_of(const LinearGroup& group, c10::ScalarType dtype) {
  return group.quantised ? group.quantised->rows(0, group.quantised->num_rows(), dtype) : group.weight;
}

// Keeps the few bits for the backward pass, not the numbers made of them.
struct KeptWeight : torch::CustomClassHolder {
  std::shared_ptr<const QuantisedWeight> weight;
};
class QuantisedProduct : public torch::autograd::Function<QuantisedProduct> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const LinearGroup& group) {
    auto kept = c10::make_intrusive<KeptWeight>();
    kept->weight = group.quantised;
    ctx->saved_data["weight"] = c10::IValue::make_capsule(std::move(kept));
    return frozen_linear(x, numbers_of(group, x.scalar_type()), group.bias);
  }
  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    const auto capsule = ctx->saved_data["weight"].toCapsule();
    const QuantisedWeight& weight = *static_cast<const KeptWeight&>(*capsule).weight;
    return {at::mm(grads[0], weight.rows(0, weight.num_rows(), grads[0].scalar_type())), at::Tensor()};
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

void quantise(LinearGroup& group, int bits) {
  group.quantised = std::make_shared<const QuantisedWeight>(group.weight, bits);
  std::vector<std::int64_t> rows;
  std::vector<int> slot_idxs;
  for (const FrozenLinear& part : group.parts) {
    rows.push_back(part.weight.size(0));
    slot_idxs.push_back(part.slot_idx);
  }
  const auto quantised = group.quantised;
  group =
      group_of(at::empty(group.weight.sizes(), group.weight.options().device(at::kMeta)), group.bias, rows, slot_idxs);
  group.quantised = quantised;
}

std::vector<at::Tensor> apply_frozen(const LinearGroup& group, const at::Tensor& x) {
  const bool keeps_bits = group.quantised && at::GradMode::is_enabled() && x.requires_grad();
  const at::Tensor y =
      keeps_bits ? QuantisedProduct::apply(x, group) : frozen_linear(x, numbers_of(group, x.scalar_type()), group.bias);
  return outputs_of(group, y);
}

std::vector<at::Tensor> apply_frozen(const LinearGroup& group, const at::Tensor& x,
                                     const std::function<void()>& beside) {
  if (group.quantised || !takes_own_product(x, group.weight, group.bias) || at::GradMode::is_enabled()) {
    beside();
    return apply_frozen(group, x);
  }
  return outputs_of(group, dot_rows(x, group.weight, group.bias, beside));
}

at::Tensor frozen_gradient(const LinearGroup& group, const std::vector<at::Tensor>& grads) {
  at::Tensor sum;  // (N, D_in)
  std::int64_t row = 0;
  for (std::size_t i = 0; i < group.parts.size(); ++i) {
    const at::Tensor& grad = grads[i];
    const std::int64_t rows = group.parts[i].weight.size(0);
    if (grad.defined()) {
      const at::Tensor weight =
          group.quantised ? group.quantised->rows(row, rows, grad.scalar_type()) : group.parts[i].weight;
      if (sum.defined()) {
        sum.addmm_(grad, weight);
      } else {
        sum = at::mm(grad, weight);
      }
    }
    row += rows;
  }
  return sum;
}

at::Tensor frozen_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (!takes_own_product(x, weight, bias)) return at::linear(x, weight, bias);
  const bool needs_grad = at::GradMode::is_enabled() && x.requires_grad();
  return needs_grad ? FrozenProduct::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt)
                    : dot_rows(x, weight, bias);
}

}  // namespace skein
