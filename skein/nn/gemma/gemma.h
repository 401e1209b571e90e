// Gemma 3, text only.
#pragma once

#include <vector>

#include "skein/nn/backbone.h"
#include "skein/nn/gemma/block.h"
#include "skein/nn/token_table.h"

namespace skein {

class Gemma : public Backbone {
 public:
  Gemma(WeightReader& weights, const BackboneConfig& config, const ComputeOptions& compute);
  at::Tensor forward(const PackedBatch& batch, const EncodedSource* source, ForwardState& state) const override;
  at::Tensor logits(const at::Tensor& hidden) const override;

 private:
  TokenTable embedding_;  // (V, D)
  float embedding_scale_;
  Rotary full_rotary_, sliding_rotary_;
  std::vector<GemmaBlock> blocks_;
  RmsNorm norm_;
  TokenTable head_;  // (V, D); tied: the embedding
};

}  // namespace skein
