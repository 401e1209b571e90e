#include "skein/nn/linear.h"

#include <ATen/ATen.h>

#include "skein/base/check.h"

namespace skein {

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

std::vector<at::Tensor> apply_frozen(const LinearGroup& group, const at::Tensor& x) {
  const at::Tensor y = frozen_linear(x, group.weight, group.bias);  // (N, sum of D_out)
  if (group.parts.size() == 1) return {y};
  std::vector<at::Tensor> outputs;
  std::int64_t column = 0;
  for (const FrozenLinear& part : group.parts) {
    outputs.push_back(y.narrow(1, column, part.weight.size(0)));
    column += part.weight.size(0);
  }
  return outputs;
}

at::Tensor frozen_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return at::linear(x, weight, bias);
}

}  // namespace skein
