// T5: an encoder, and a decoder that reads it.
#pragma once

#include <optional>
#include <vector>

#include "skein/nn/backbone.h"
#include "skein/nn/t5/block.h"
#include "skein/nn/t5/relative_bias.h"
#include "skein/nn/token_table.h"

namespace skein {

class T5 : public Backbone {
 public:
  T5(WeightReader& weights, const BackboneConfig& config, const ComputeOptions& compute);
  EncodedSource encode(const PackedBatch& source, ForwardState& state) const override;
  at::Tensor forward(const PackedBatch& batch, const EncodedSource* source, ForwardState& state) const override;
  at::Tensor logits(const at::Tensor& hidden) const override;

 private:
  TokenTable embedding_;  // (V, D)
  std::vector<T5EncoderBlock> encoder_;
  std::optional<RelativeBias> encoder_bias_;
  RmsNorm encoder_norm_;
  std::vector<T5DecoderBlock> decoder_;
  std::optional<RelativeBias> decoder_bias_;
  RmsNorm decoder_norm_;
  TokenTable head_;  // (V, D); tied: the embedding
};

}  // namespace skein
