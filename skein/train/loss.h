// Cross-entropy of target tokens, and its gradient at the hidden states, without ever holding all logits.
#pragma once

#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>

#include "skein/nn/backbone.h"

namespace skein {

struct TargetLoss {
  at::Tensor row_losses;  // (n) f32: -log p(target), natural log
  at::Tensor
      hidden_gradient;  // (n, D), dtype of hidden: gradient of sum(row_weights * row_losses); undefined if not asked
};

constexpr std::int64_t kLossChunkRows = 64;  // 64 rows of 49,152 logits: 13 MB in f32

// hidden (n, D): the rows that predict a target, before the output head; targets (n) int64. With row_weights (n) f32
// the gradient is computed too. Chunk by chunk the logits are made, turned into losses and gradients in f32, and
// dropped: the memory is that of chunk_rows rows however long the targets. (The loss is the last operation of the
// forward pass, so its gradient needs nothing from the backward pass: no graph is kept, the caller goes on with
// hidden.backward(gradient).)
TargetLoss target_loss(const Backbone& backbone, const at::Tensor& hidden, const at::Tensor& targets,
                       const std::optional<at::Tensor>& row_weights, std::int64_t chunk_rows = kLossChunkRows);

}  // namespace skein
