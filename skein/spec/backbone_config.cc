#include "skein/spec/backbone_config.h"

#include "skein/base/concat.h"
#include "skein/base/shape.h"

namespace skein {

std::string_view family_name(Family family) {
  switch (family) {
    case Family::kLlama:
      return "llama";
    case Family::kQwen2:
      return "qwen2";
    case Family::kQwen3:
      return "qwen3";
    case Family::kGemma3:
      return "gemma3";
    case Family::kT5:
      return "t5";
  }
  SKEIN_CHECK(false);
  return {};
}

Status check_config(const BackboneConfig& config, const std::string& path) {
  // Bounds far above any model, low enough that no product of two of them overflows.
  struct Bound {
    const char* name;
    std::int64_t value;
    std::int64_t highest;
  };
  const Bound bounds[] = {
      {"number of layers", config.num_layers, 4096},
      {"width", config.d_model, 1 << 24},
      {"number of attention heads", config.num_heads, 1 << 16},
      {"number of key/value heads", config.num_kv_heads, 1 << 16},
      {"head size", config.d_head, 1 << 16},
      {"feed-forward width", config.d_ff, 1 << 26},
      {"vocabulary size", config.vocabulary_size, 1 << 26},
      {"number of positions", config.max_positions, std::int64_t{1} << 32},
  };
  for (const Bound& bound : bounds) {
    if (bound.value < 1 || bound.value > bound.highest) {
      return Error{concat(path, ": ", bound.name, " is ", bound.value, "; expected 1 to ", bound.highest,
                          "; the file is damaged or not a language model")};
    }
  }
  if (config.num_heads % config.num_kv_heads != 0) {
    return Error{concat(path, ": ", config.num_heads, " attention heads cannot share ", config.num_kv_heads,
                        " key/value heads; the first must be a multiple of the second")};
  }
  if (!config.is_encoder_decoder() && config.d_head % 2 != 0) {
    return Error{concat(path, ": head size is ", config.d_head, "; rotary embeddings need an even one")};
  }
  if (config.is_encoder_decoder() &&
      (config.num_decoder_layers < 1 || config.num_decoder_layers > 4096 || config.relative_buckets < 4 ||
       config.relative_buckets > 4096 || config.relative_max_distance <= config.relative_buckets / 2)) {
    return Error{concat(path, ": ", config.num_decoder_layers, " decoder layers, ", config.relative_buckets,
                        " relative position buckets up to distance ", config.relative_max_distance, "; that is no T5")};
  }
  if (!(config.norm_eps > 0) || !(config.norm_eps < 1) || !(config.rope_theta > 0) || !(config.rope_theta_local > 0) ||
      !(config.rope_linear_factor > 0) || !(config.query_scale > 0)) {
    return Error{concat(path, ": norm epsilon ", config.norm_eps, ", rope theta ", config.rope_theta, " and ",
                        config.rope_theta_local, ", rope factor ", config.rope_linear_factor, ", query scale ",
                        config.query_scale, "; expected positive numbers, epsilon below 1")};
  }
  if (!config.layer_is_sliding.empty() &&
      (static_cast<std::int64_t>(config.layer_is_sliding.size()) != config.num_layers || config.sliding_window < 1)) {
    return Error{concat(path, ": ", config.layer_is_sliding.size(), " layer types for ", config.num_layers,
                        " layers, sliding window ", config.sliding_window,
                        "; expected one type per layer and a window of 1 or more")};
  }
  return {};
}

}  // namespace skein
