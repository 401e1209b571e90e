#include "skein/nn/gemma/block.h"

#include <ATen/ATen.h>

#include "skein/nn/feed_forward.h"
#include "skein/nn/slot.h"

namespace skein {

// Members are declared, and so read, in forward order.
GemmaBlock::GemmaBlock(WeightReader& weights, const BackboneConfig& config, int layer)
    : config_(config),
      layer_(layer),
      slides_(layer < static_cast<int>(config.layer_is_sliding.size()) && config.layer_is_sliding[layer]),
      before_attention_(next_norm(weights, config)),
      qkv_(weights.next_linears(3)),
      q_norm_(next_norm(weights, config)),
      k_norm_(next_norm(weights, config)),
      output_(weights.next_linears(1)),
      after_attention_(next_norm(weights, config)),
      before_feed_forward_(next_norm(weights, config)),
      gate_up_(weights.next_linears(2)),
      down_(weights.next_linears(1)),
      after_feed_forward_(next_norm(weights, config)) {}

at::Tensor GemmaBlock::forward(const at::Tensor& x, const GemmaPass& pass, ForwardState& state) const {
  const GemmaPass::Kind& kind = slides_ ? pass.sliding : pass.full;
  const at::Tensor attended = x + after_attention_(attend(before_attention_(x), kind, state));
  return attended + after_feed_forward_(feed_forward(before_feed_forward_(attended), state));
}

at::Tensor GemmaBlock::attend(const at::Tensor& x, const GemmaPass::Kind& pass, ForwardState& state) const {
  const std::vector<at::Tensor> qkv = apply_slots(qkv_, x, state);
  const at::Tensor q = q_norm_(qkv[0].unflatten(1, {config_.num_heads, config_.d_head}));     // (N, H, Dh)
  const at::Tensor k = k_norm_(qkv[1].unflatten(1, {config_.num_kv_heads, config_.d_head}));  // (N, Hkv, Dh)
  const at::Tensor v = qkv[2].unflatten(1, {config_.num_kv_heads, config_.d_head});
  const at::Tensor attended =
      packed_attention(rotate(q, pass.rotary), rotate(k, pass.rotary), v, pass.plan, layer_, config_.query_scale);
  return apply_slots(output_, attended, state)[0];
}

at::Tensor GemmaBlock::feed_forward(const at::Tensor& x, ForwardState& state) const {
  const std::vector<at::Tensor> gate_up = apply_slots(gate_up_, x, state);
  return apply_slots(down_, gate_with(config_.activation, gate_up[0], gate_up[1]), state)[0];
}

}  // namespace skein
