#include "skein/nn/t5/t5.h"

#include <ATen/ATen.h>

#include "skein/nn/stack.h"

namespace skein {

T5::T5(WeightReader& weights, const BackboneConfig& config, const ComputeOptions& compute)
    : Backbone(config, compute), embedding_(weights.next_table(TensorRole::kEmbedding)) {
  encoder_.reserve(config_.num_layers);
  for (int layer = 0; layer < config_.num_layers; ++layer) encoder_.emplace_back(weights, config_, layer);
  encoder_bias_.emplace(weights, config_, true);
  encoder_norm_ = next_norm(weights, config_);
  decoder_.reserve(config_.num_decoder_layers);
  for (int layer = 0; layer < config_.num_decoder_layers; ++layer) decoder_.emplace_back(weights, config_, layer);
  decoder_bias_.emplace(weights, config_, false);
  decoder_norm_ = next_norm(weights, config_);
  head_ = config_.tied_embeddings ? embedding_ : weights.next_table(TensorRole::kHead);
}

EncodedSource T5::encode(const PackedBatch& source, ForwardState& state) const {
  const PlanOptions options = plan_options(embedding_.options(), false, 0);
  const auto plan = plan_self_attention(source.segments, options, &*encoder_bias_);
  at::Tensor x = embedding_.rows(source.ids);  // (S_total, D)
  state.rows = sequence_rows(source.segments, x, state);
  for (const T5EncoderBlock& block : encoder_) {
    x = run_block(checkpoint_blocks_, {x}, state,
                  [&block, plan](const std::vector<at::Tensor>& inputs, ForwardState& block_state) {
                    return block.forward(inputs[0], plan, block_state);
                  });
  }
  return EncodedSource{encoder_norm_(x), state.rows};
}

at::Tensor T5::forward(const PackedBatch& batch, const EncodedSource* source, ForwardState& state) const {
  T5DecoderPass pass{.segments = batch.segments};
  if (source != nullptr) pass.source_rows = source->rows;
  const PlanOptions options = plan_options(embedding_.options(), true, 0);
  pass.self_plan = plan_self_attention(batch.segments, options, &*decoder_bias_);
  pass.cross_plan =
      plan_cross_attention(batch.segments, source == nullptr ? std::vector<Segment>() : source->rows->segments);
  const at::Tensor hidden = source != nullptr ? source->hidden : at::Tensor();
  at::Tensor x = embedding_.rows(batch.ids);  // (N, D)
  state.rows = decoder_rows(batch.segments, x, pass.source_rows.get(), state);
  const bool recomputes = checkpoint_blocks_ && !pass.self_plan->has_cache();
  for (const T5DecoderBlock& block : decoder_) {
    x = run_block(recomputes, {x, hidden}, state,
                  [&block, pass](const std::vector<at::Tensor>& inputs, ForwardState& block_state) {
                    return block.forward(inputs[0], inputs[1], pass, block_state);
                  });
  }
  advance_caches(batch.segments);
  return decoder_norm_(x);
}

at::Tensor T5::logits(const at::Tensor& hidden) const {
  return head_.scores(config_.logits_scale == 1 ? hidden : hidden * config_.logits_scale);
}

}  // namespace skein
