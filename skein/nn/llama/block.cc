#include "skein/nn/llama/block.h"

#include <ATen/ATen.h>

#include "skein/nn/feed_forward.h"
#include "skein/nn/slot.h"

namespace skein {

LlamaBlock::LlamaBlock(WeightReader& weights, const BackboneConfig& config, int layer)
    : config_(config),
      layer_(layer),
      attention_norm_(next_norm(weights, config)),
      qkv_(weights.next_linears(3, config.qkv_bias)) {
  if (config.qk_norm) {
    q_norm_ = next_norm(weights, config);
    k_norm_ = next_norm(weights, config);
  }
  output_ = weights.next_linears(1);
  feed_forward_norm_ = next_norm(weights, config);
  gate_up_ = weights.next_linears(2);
  down_ = weights.next_linears(1);
}

at::Tensor LlamaBlock::forward(const at::Tensor& x, const LlamaPass& pass, ForwardState& state) const {
  const at::Tensor attended = x + attend(attention_norm_(x), pass, state);
  return attended + feed_forward(feed_forward_norm_(attended), state);
}

at::Tensor LlamaBlock::attend(const at::Tensor& x, const LlamaPass& pass, ForwardState& state) const {
  const std::vector<at::Tensor> qkv = apply_slots(qkv_, x, state);
  at::Tensor q = qkv[0].unflatten(1, {config_.num_heads, config_.d_head});     // (N, H, Dh)
  at::Tensor k = qkv[1].unflatten(1, {config_.num_kv_heads, config_.d_head});  // (N, Hkv, Dh)
  const at::Tensor v = qkv[2].unflatten(1, {config_.num_kv_heads, config_.d_head});
  if (q_norm_) q = (*q_norm_)(q);
  if (k_norm_) k = (*k_norm_)(k);
  const at::Tensor attended =
      packed_attention(rotate(q, pass.rotary), rotate(k, pass.rotary), v, pass.plan, layer_, config_.query_scale);
  return apply_slots(output_, attended, state)[0];
}

at::Tensor LlamaBlock::feed_forward(const at::Tensor& x, ForwardState& state) const {
  const std::vector<at::Tensor> gate_up = apply_slots(gate_up_, x, state);
  return apply_slots(down_, gate_with(config_.activation, gate_up[0], gate_up[1]), state)[0];
}

}  // namespace skein
