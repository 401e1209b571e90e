// The encoder and decoder blocks of T5, v1.0 (relu) and v1.1, LM-adapted and FLAN (gated gelu).
#pragma once

#include <memory>

#include <ATen/core/Tensor.h>

#include "skein/nn/attention.h"
#include "skein/nn/backbone.h"
#include "skein/nn/linear.h"
#include "skein/nn/norm.h"
#include "skein/nn/weight_reader.h"

namespace skein {

// wo(act(wi_0 x) * wi_1 x), or wo(act(wi x)).
class T5FeedForward {
 public:
  T5FeedForward(WeightReader& weights, const BackboneConfig& config);
  at::Tensor forward(const at::Tensor& x, ForwardState& state) const;  // (N, D) -> (N, D), x added

 private:
  const BackboneConfig& config_;
  RmsNorm norm_;
  LinearGroup in_;   // (2 F or F, D)
  LinearGroup out_;  // (D, F)
};

class T5SelfAttention {
 public:
  T5SelfAttention(WeightReader& weights, const BackboneConfig& config, int layer);
  at::Tensor forward(const at::Tensor& x, const std::shared_ptr<const AttentionPlan>& plan, ForwardState& state) const;

 private:
  const BackboneConfig& config_;
  int layer_;
  RmsNorm norm_;
  LinearGroup qkv_;     // (3 H * Dh, D)
  LinearGroup output_;  // (D, H * Dh)
};

class T5CrossAttention {
 public:
  T5CrossAttention(WeightReader& weights, const BackboneConfig& config, int layer);
  // source (S_total, D), undefined where every segment's cache holds its source's keys and values.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& source,
                     const std::shared_ptr<const SequenceRows>& source_rows, const std::vector<Segment>& segments,
                     const std::shared_ptr<const AttentionPlan>& plan, ForwardState& state) const;

 private:
  const BackboneConfig& config_;
  int layer_;
  RmsNorm norm_;
  LinearGroup q_;       // (H * Dh, D)
  LinearGroup kv_;      // (2 H * Dh, D)
  LinearGroup output_;  // (D, H * Dh)
};

class T5EncoderBlock {
 public:
  T5EncoderBlock(WeightReader& weights, const BackboneConfig& config, int layer);
  at::Tensor forward(const at::Tensor& x, const std::shared_ptr<const AttentionPlan>& plan, ForwardState& state) const;

 private:
  T5SelfAttention attention_;
  T5FeedForward feed_forward_;
};

// What the decoder's layers share in a pass. Borrowed parts live until the backward pass, if there is one.
struct T5DecoderPass {
  std::shared_ptr<const AttentionPlan> self_plan, cross_plan;
  std::vector<Segment> segments;
  std::shared_ptr<const SequenceRows> source_rows;  // null without a source
};

class T5DecoderBlock {
 public:
  T5DecoderBlock(WeightReader& weights, const BackboneConfig& config, int layer);
  at::Tensor forward(const at::Tensor& x, const at::Tensor& source, const T5DecoderPass& pass,
                     ForwardState& state) const;

 private:
  T5SelfAttention attention_;
  T5CrossAttention cross_attention_;
  T5FeedForward feed_forward_;
};

}  // namespace skein
