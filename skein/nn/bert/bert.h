// BERT's encoder (arXiv 1810.04805), f32: what a sentence encoder is made of. No slots, no generation.
//
// Thread-safety: const after loading.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/base/result.h"
#include "skein/io/checkpoint.h"
#include "skein/io/json.h"

namespace skein {

struct BertConfig {
  std::int64_t vocabulary_size = 0, num_layers = 0, d_model = 0, num_heads = 0, d_ff = 0, max_positions = 0;
  double norm_eps = 1e-12;
};
// Refuses other models, other activations than the exact GELU and other than absolute positions.
Result<BertConfig> bert_config_from_json(const Json& config, const std::string& path);

class Bert {
 public:
  // Throws Failure: a missing tensor, another shape.
  Bert(const Checkpoint& weights, const BertConfig& config);
  const BertConfig& config() const { return config_; }
  // Sequences of at most max_positions ids, one after the other in ids (N), of the given lengths -> (N, D). No sequence
  // sees another.
  at::Tensor hidden(const std::vector<std::int32_t>& ids, const std::vector<std::int64_t>& lengths) const;

 private:
  struct Linear {
    at::Tensor weight, bias;
    at::Tensor operator()(const at::Tensor& x) const;
  };
  struct Norm {
    at::Tensor weight, bias;
  };
  struct Layer {
    Linear query, key, value, attended, inner, outer;
    Norm after_attention, after_feed_forward;
  };
  at::Tensor normalised(const at::Tensor& x, const Norm& norm) const;
  at::Tensor attention(const Layer& layer, const at::Tensor& x, const std::vector<std::int64_t>& lengths) const;

  BertConfig config_;
  at::Tensor words_, positions_, type_;
  Norm embedding_norm_;
  std::vector<Layer> layers_;
};

}  // namespace skein
