#include "skein/nn/token_table.h"

#include <ATen/ATen.h>

#include "skein/nn/linear.h"
#include "skein/nn/quantised_weight.h"

namespace skein {

TokenTable::TokenTable(at::Tensor weight) : weight_(std::move(weight)), options_(weight_.options()) {}

TokenTable::TokenTable(std::shared_ptr<const QuantisedWeight> quantised, c10::ScalarType dtype)
    : quantised_(std::move(quantised)), options_(at::TensorOptions().dtype(dtype)) {}

at::Tensor TokenTable::rows(const at::Tensor& ids) const {
  return quantised_ ? quantised_->rows(ids, c10::typeMetaToScalarType(options_.dtype())) : at::embedding(weight_, ids);
}

at::Tensor TokenTable::scores(const at::Tensor& hidden) const {
  return quantised_ ? quantised_linear(hidden, quantised_, {}) : frozen_linear(hidden, weight_, {});
}

}  // namespace skein
