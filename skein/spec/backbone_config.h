// What a base model is, as plain numbers, whichever file says so.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/gguf.h"
#include "skein/io/json.h"

namespace skein {

enum class Family { kLlama, kQwen2, kQwen3, kGemma3, kT5 };
enum class Activation { kSilu, kGeluTanh, kRelu };

struct BackboneConfig {
  Family family = Family::kLlama;
  std::int64_t num_layers = 0;          // L; T5: encoder layers
  std::int64_t num_decoder_layers = 0;  // T5 only
  std::int64_t d_model = 0;             // D
  std::int64_t num_heads = 0;           // H
  std::int64_t num_kv_heads = 0;        // groups of query heads share one
  std::int64_t d_head = 0;              // Dh
  std::int64_t d_ff = 0;                // F
  std::int64_t vocabulary_size = 0;     // V
  std::int64_t max_positions = 0;       // tokens; T5: 512 by custom, not a limit
  double norm_eps = 1e-6;
  bool tied_embeddings = true;  // the output head is the embedding matrix
  Activation activation = Activation::kSilu;

  // Rotary embedding.
  double rope_theta = 10000;        // full layers
  double rope_theta_local = 10000;  // Gemma 3's sliding layers
  double rope_linear_factor = 1;    // positions are divided by it (full layers)
  struct Llama3Rope {
    double factor, low_freq_factor, high_freq_factor;
    std::int64_t original_positions;
  };
  std::optional<Llama3Rope> rope_llama3;

  // Attention.
  bool qkv_bias = false;   // Qwen2
  bool qk_norm = false;    // Qwen3, Gemma 3: RMS norm of each head's q and k
  double query_scale = 0;  // scores are multiplied by it (1/sqrt(Dh), Gemma: query_pre_attn_scalar^-1/2; T5: 1)
  std::int64_t sliding_window = 0;     // tokens a query sees, itself included; 0: no window anywhere
  std::vector<bool> layer_is_sliding;  // size num_layers (empty: none)

  // Gemma 3.
  double embedding_scale = 1;  // sqrt(D), rounded to the compute type as transformers does
  bool norm_adds_one = false;  // weights are stored as (w - 1)

  // T5.
  std::int64_t relative_buckets = 32;
  std::int64_t relative_max_distance = 128;
  bool gated_ff = true;     // v1.1: act(wi_0 x) * wi_1 x; v1.0: act(wi x)
  double logits_scale = 1;  // T5 v1.0 with a tied head: D^-1/2
  std::int64_t decoder_start_token = 0;

  std::vector<std::int64_t> eos_tokens;  // of config / generation config

  bool is_encoder_decoder() const { return family == Family::kT5; }
};

std::string_view family_name(Family family);  // "llama"

// From config.json of a Hugging Face folder. Unknown model types, and settings Skein does not compute (another rope
// scaling, a quantised base, soft-capped logits, ...) are errors that name them; what acts in training only (dropout)
// is ignored. path: for messages.
Result<BackboneConfig> config_from_json(const Json& config, const std::string& path);
// From GGUF metadata (general.architecture llama, qwen2, qwen3, gemma3, t5).
Result<BackboneConfig> config_from_gguf(const GgufFile& file);
// The config.json that transformers loads; dtype "bfloat16" or "float32".
Json config_to_json(const BackboneConfig& config, const std::string& dtype);

// Sizes that cannot be (zero heads, heads that do not share out, products past any memory) as an error. Both readers
// above end with it.
Status check_config(const BackboneConfig& config, const std::string& path);

}  // namespace skein
