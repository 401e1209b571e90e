// A row of numbers per token of the vocabulary: what a model reads its tokens with (the embedding) and scores the next
// token with (the head), often one and the same.
#pragma once

#include <memory>

#include <ATen/core/Tensor.h>

namespace skein {

class QuantisedWeight;

class TokenTable {
 public:
  TokenTable() = default;
  // weight (V, D): of it, a gradient only if it was thawed.
  explicit TokenTable(at::Tensor weight);
  // The same in few bits, computed with as dtype. On the CPU.
  TokenTable(std::shared_ptr<const QuantisedWeight> quantised, c10::ScalarType dtype);

  const at::TensorOptions& options() const { return options_; }  // of rows and scores
  at::Tensor rows(const at::Tensor& ids) const;                  // ids (N) i64 -> (N, D)
  at::Tensor scores(const at::Tensor& hidden) const;             // (n, D) -> (n, V)

 private:
  at::Tensor weight_;
  std::shared_ptr<const QuantisedWeight> quantised_;  // null: weight_ holds the numbers
  at::TensorOptions options_;
};

}  // namespace skein
