// The decoder block of Llama, SmolLM2, Qwen2 (biases on q, k, v) and Qwen3 (norms on the heads of q and k).
#pragma once

#include <memory>
#include <optional>

#include <ATen/core/Tensor.h>

#include "skein/nn/attention.h"
#include "skein/nn/forward_state.h"
#include "skein/nn/linear.h"
#include "skein/nn/norm.h"
#include "skein/nn/rotary.h"
#include "skein/nn/weight_reader.h"

namespace skein {

// What all layers of a pass share.
struct LlamaPass {
  RotaryTable rotary;
  std::shared_ptr<const AttentionPlan> plan;
};

class LlamaBlock {
 public:
  LlamaBlock(WeightReader& weights, const BackboneConfig& config, int layer);
  at::Tensor forward(const at::Tensor& x, const LlamaPass& pass, ForwardState& state) const;  // (N, D) -> (N, D)

 private:
  at::Tensor attend(const at::Tensor& x, const LlamaPass& pass, ForwardState& state) const;
  at::Tensor feed_forward(const at::Tensor& x, ForwardState& state) const;

  const BackboneConfig& config_;
  int layer_;
  RmsNorm attention_norm_;
  LinearGroup qkv_;  // (H * Dh + 2 Hkv * Dh, D)
  std::optional<RmsNorm> q_norm_, k_norm_;
  LinearGroup output_;  // (D, H * Dh)
  RmsNorm feed_forward_norm_;
  LinearGroup gate_up_;  // (2 F, D)
  LinearGroup down_;     // (D, F)
};

}  // namespace skein
