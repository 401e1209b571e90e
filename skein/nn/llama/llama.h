// Decoder-only models of Llama's form.
#pragma once

#include <vector>

#include "skein/nn/backbone.h"
#include "skein/nn/llama/block.h"
#include "skein/nn/token_table.h"

namespace skein {

class Llama : public Backbone {
 public:
  Llama(WeightReader& weights, const BackboneConfig& config, const ComputeOptions& compute);
  at::Tensor forward(const PackedBatch& batch, const EncodedSource* source, ForwardState& state) const override;
  at::Tensor logits(const at::Tensor& hidden) const override;

 private:
  TokenTable embedding_;  // (V, D)
  Rotary rotary_;
  std::vector<LlamaBlock> blocks_;
  RmsNorm norm_;
  TokenTable head_;  // (V, D); tied: the embedding
};

}  // namespace skein
