#include "skein/nn/gemma/gemma.h"

#include <ATen/ATen.h>

#include "skein/nn/stack.h"

namespace skein {
namespace {

// transformers multiplies by the factor as the compute dtype holds it.
float rounded(double value, c10::ScalarType dtype) {
  const float narrow = static_cast<float>(value);
  return dtype == c10::ScalarType::BFloat16 ? static_cast<float>(c10::BFloat16(narrow)) : narrow;
}

}  // namespace

Gemma::Gemma(WeightReader& weights, const BackboneConfig& config, const ComputeOptions& compute)
    : Backbone(config, compute),
      embedding_(weights.next_table(TensorRole::kEmbedding)),
      embedding_scale_(rounded(config.embedding_scale, compute.dtype)),
      full_rotary_(Rotary::full(config_, compute.device)),
      sliding_rotary_(Rotary::local(config_, compute.device)) {
  blocks_.reserve(config_.num_layers);
  for (int layer = 0; layer < config_.num_layers; ++layer) blocks_.emplace_back(weights, config_, layer);
  norm_ = next_norm(weights, config_);
  head_ = config_.tied_embeddings ? embedding_ : weights.next_table(TensorRole::kHead);
}

at::Tensor Gemma::forward(const PackedBatch& batch, const EncodedSource*, ForwardState& state) const {
  const PlanOptions full = plan_options(embedding_.options(), true, 0);
  const PlanOptions sliding = plan_options(embedding_.options(), true, config_.sliding_window);
  const GemmaPass pass{{full_rotary_.table(batch.positions), plan_self_attention(batch.segments, full)},
                       {sliding_rotary_.table(batch.positions), plan_self_attention(batch.segments, sliding)}};
  at::Tensor x = embedding_.rows(batch.ids) * embedding_scale_;  // (N, D)
  state.rows = sequence_rows(batch.segments, x, state);
  const bool recomputes = checkpoint_blocks_ && !pass.full.plan->has_cache();
  for (const GemmaBlock& block : blocks_) {
    x = run_block(recomputes, {x}, state,
                  [&block, pass](const std::vector<at::Tensor>& inputs, ForwardState& block_state) {
                    return block.forward(inputs[0], pass, block_state);
                  });
  }
  advance_caches(batch.segments);
  return norm_(x);
}

at::Tensor Gemma::logits(const at::Tensor& hidden) const { return head_.scores(hidden); }

}  // namespace skein
