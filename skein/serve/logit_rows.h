// Rows of logits as floats, whatever the model computes in.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

namespace skein {

class LogitRows {
 public:
  explicit LogitRows(const at::Tensor& logits);  // (n, V)
  std::int64_t size() const { return logits_.size(0); }
  // Copies a row into `scratch` (sized here). Rows may be read side by side, each with a scratch of its own.
  std::span<float> row(std::int64_t i, std::vector<float>& scratch) const;

 private:
  at::Tensor logits_;  // on the CPU, contiguous
};

}  // namespace skein
