#include "skein/nn/t5/block.h"

#include <utility>

#include <ATen/ATen.h>

#include "skein/base/check.h"
#include "skein/nn/feed_forward.h"
#include "skein/nn/slot.h"

namespace skein {
namespace {

at::Tensor heads(const at::Tensor& x, const BackboneConfig& config) {  // (N, H * Dh) -> (N, H, Dh)
  return x.unflatten(1, {config.num_heads, config.d_head});
}

bool holds_source(const Segment& segment, int layer) {
  return segment.cache != nullptr && layer < static_cast<int>(segment.cache->cross.size()) &&
         segment.cache->cross[layer].k.defined();
}

}  // namespace

T5FeedForward::T5FeedForward(WeightReader& weights, const BackboneConfig& config)
    : config_(config),
      norm_(next_norm(weights, config)),
      in_(weights.next_linears(config.gated_ff ? 2 : 1)),
      out_(weights.next_linears(1)) {}

at::Tensor T5FeedForward::forward(const at::Tensor& x, ForwardState& state) const {
  const std::vector<at::Tensor> in = apply_slots(in_, norm_(x), state);
  const at::Tensor inner =
      config_.gated_ff ? gate_with(config_.activation, in[0], in[1]) : activate(config_.activation, in[0]);
  return x + apply_slots(out_, inner, state)[0];
}

T5SelfAttention::T5SelfAttention(WeightReader& weights, const BackboneConfig& config, int layer)
    : config_(config),
      layer_(layer),
      norm_(next_norm(weights, config)),
      qkv_(weights.next_linears(3)),
      output_(weights.next_linears(1)) {}

at::Tensor T5SelfAttention::forward(const at::Tensor& x, const std::shared_ptr<const AttentionPlan>& plan,
                                    ForwardState& state) const {
  const std::vector<at::Tensor> qkv = apply_slots(qkv_, norm_(x), state);
  const at::Tensor attended = packed_attention(heads(qkv[0], config_), heads(qkv[1], config_), heads(qkv[2], config_),
                                               plan, layer_, config_.query_scale);
  return x + apply_slots(output_, attended, state)[0];
}

T5CrossAttention::T5CrossAttention(WeightReader& weights, const BackboneConfig& config, int layer)
    : config_(config),
      layer_(layer),
      norm_(next_norm(weights, config)),
      q_(weights.next_linears(1)),
      kv_(weights.next_linears(2)),
      output_(weights.next_linears(1)) {}

at::Tensor T5CrossAttention::forward(const at::Tensor& x, const at::Tensor& source,
                                     const std::shared_ptr<const SequenceRows>& source_rows,
                                     const std::vector<Segment>& segments,
                                     const std::shared_ptr<const AttentionPlan>& plan, ForwardState& state) const {
  const at::Tensor q = heads(apply_slots(q_, norm_(x), state)[0], config_);
  at::Tensor k = q, v = q;  // not read where all keys are in caches
  const bool all_held = std::all_of(segments.begin(), segments.end(),
                                    [&](const Segment& segment) { return holds_source(segment, layer_); });
  if (!all_held) {
    SKEIN_CHECK(source.defined() && source_rows != nullptr);
    // These slots read the source's rows.
    const auto decoder_rows = std::exchange(state.rows, source_rows);
    const std::vector<at::Tensor> kv = apply_slots(kv_, source, state);
    state.rows = decoder_rows;
    k = heads(kv[0], config_);  // (S_total, H, Dh)
    v = heads(kv[1], config_);
    for (const Segment& segment : segments) {
      if (segment.cache == nullptr || holds_source(segment, layer_)) continue;
      const Segment& read = source_rows->segments.at(segment.source);
      segment.cache->cross.resize(config_.num_decoder_layers);
      // Of several sources a copy: a view would keep all of them for as long as one is read.
      const auto own = [&](const at::Tensor& all) {
        const at::Tensor rows = all.narrow(0, read.begin, read.length);
        return read.length == all.size(0) ? rows : rows.clone();
      };
      segment.cache->cross[layer_] = {own(k), own(v)};
    }
  }
  const at::Tensor attended = packed_attention(q, k, v, plan, layer_, config_.query_scale);
  return x + apply_slots(output_, attended, state)[0];
}

T5EncoderBlock::T5EncoderBlock(WeightReader& weights, const BackboneConfig& config, int layer)
    : attention_(weights, config, layer), feed_forward_(weights, config) {}

at::Tensor T5EncoderBlock::forward(const at::Tensor& x, const std::shared_ptr<const AttentionPlan>& plan,
                                   ForwardState& state) const {
  return feed_forward_.forward(attention_.forward(x, plan, state), state);
}

T5DecoderBlock::T5DecoderBlock(WeightReader& weights, const BackboneConfig& config, int layer)
    : attention_(weights, config, layer), cross_attention_(weights, config, layer), feed_forward_(weights, config) {}

at::Tensor T5DecoderBlock::forward(const at::Tensor& x, const at::Tensor& source, const T5DecoderPass& pass,
                                   ForwardState& state) const {
  const at::Tensor attended = attention_.forward(x, pass.self_plan, state);
  const at::Tensor crossed =
      cross_attention_.forward(attended, source, pass.source_rows, pass.segments, pass.cross_plan, state);
  return feed_forward_.forward(crossed, state);
}

}  // namespace skein
