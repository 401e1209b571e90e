#include "skein/nn/llama/llama.h"

#include <ATen/ATen.h>

#include "skein/nn/stack.h"

namespace skein {

Llama::Llama(WeightReader& weights, const BackboneConfig& config, const ComputeOptions& compute)
    : Backbone(config, compute),
      embedding_(weights.next_table(TensorRole::kEmbedding)),
      rotary_(Rotary::full(config_, compute.device)) {
  blocks_.reserve(config_.num_layers);
  for (int layer = 0; layer < config_.num_layers; ++layer) blocks_.emplace_back(weights, config_, layer);
  norm_ = next_norm(weights, config_);
  head_ = config_.tied_embeddings ? embedding_ : weights.next_table(TensorRole::kHead);
}

at::Tensor Llama::forward(const PackedBatch& batch, const EncodedSource*, ForwardState& state) const {
  const PlanOptions options = plan_options(embedding_.options(), true, config_.sliding_window);
  const LlamaPass pass{rotary_.table(batch.positions), plan_self_attention(batch.segments, options)};
  at::Tensor x = embedding_.rows(batch.ids);  // (N, D)
  state.rows = sequence_rows(batch.segments, x, state);
  const bool recomputes = checkpoint_blocks_ && !pass.plan->has_cache();
  for (const LlamaBlock& block : blocks_) {
    x = run_block(recomputes, {x}, state,
                  [&block, pass](const std::vector<at::Tensor>& inputs, ForwardState& block_state) {
                    return block.forward(inputs[0], pass, block_state);
                  });
  }
  advance_caches(batch.segments);
  return norm_(x);
}

at::Tensor Llama::logits(const at::Tensor& hidden) const { return head_.scores(hidden); }

}  // namespace skein
