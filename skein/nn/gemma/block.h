// The decoder block of Gemma 3: norms before and after each half, windows in most layers, two rotary bases.
#pragma once

#include <memory>

#include <ATen/core/Tensor.h>

#include "skein/nn/attention.h"
#include "skein/nn/forward_state.h"
#include "skein/nn/linear.h"
#include "skein/nn/norm.h"
#include "skein/nn/rotary.h"
#include "skein/nn/weight_reader.h"

namespace skein {

// What the layers of a pass share, once for full and once for sliding layers.
struct GemmaPass {
  struct Kind {
    RotaryTable rotary;
    std::shared_ptr<const AttentionPlan> plan;
  };
  Kind full, sliding;
};

class GemmaBlock {
 public:
  GemmaBlock(WeightReader& weights, const BackboneConfig& config, int layer);
  at::Tensor forward(const at::Tensor& x, const GemmaPass& pass, ForwardState& state) const;  // (N, D) -> (N, D)

 private:
  at::Tensor attend(const at::Tensor& x, const GemmaPass::Kind& pass, ForwardState& state) const;
  at::Tensor feed_forward(const at::Tensor& x, ForwardState& state) const;

  const BackboneConfig& config_;
  int layer_;
  bool slides_;
  RmsNorm before_attention_;
  LinearGroup qkv_;          // (H * Dh + 2 Hkv * Dh, D)
  RmsNorm q_norm_, k_norm_;  // (Dh)
  LinearGroup output_;       // (D, H * Dh)
  RmsNorm after_attention_;
  RmsNorm before_feed_forward_;
  LinearGroup gate_up_;  // (2 F, D)
  LinearGroup down_;     // (D, F)
  RmsNorm after_feed_forward_;
};

}  // namespace skein
