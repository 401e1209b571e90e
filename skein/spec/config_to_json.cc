// The old spelling (rope_theta beside rope_scaling): transformers 4 and 5 and their peers all read it.
#include <cmath>

#include "skein/spec/backbone_config.h"

namespace skein {
namespace {

void add_end_tokens(Json& json, const BackboneConfig& config) {
  if (config.eos_tokens.size() == 1) {
    json["eos_token_id"] = config.eos_tokens[0];
  } else if (!config.eos_tokens.empty()) {
    json["eos_token_id"] = config.eos_tokens;
  } else {
    json["eos_token_id"] = nullptr;  // not the class's default, which may be another vocabulary's
  }
}

Json t5_to_json(const BackboneConfig& config, const std::string& dtype) {
  const bool relu = config.activation == Activation::kRelu;
  const char* activation = relu ? "relu" : config.activation == Activation::kSilu ? "silu" : "gelu";
  const std::string feed_forward = config.gated_ff                              ? std::string("gated-") + activation
                                   : config.activation == Activation::kGeluTanh ? "gelu_new"
                                                                                : activation;
  Json json = {
      {"architectures", {"T5ForConditionalGeneration"}},
      {"model_type", "t5"},
      {"vocab_size", config.vocabulary_size},
      {"d_model", config.d_model},
      {"d_kv", config.d_head},
      {"d_ff", config.d_ff},
      {"num_layers", config.num_layers},
      {"num_decoder_layers", config.num_decoder_layers},
      {"num_heads", config.num_heads},
      {"n_positions", config.max_positions},
      {"relative_attention_num_buckets", config.relative_buckets},
      {"relative_attention_max_distance", config.relative_max_distance},
      {"layer_norm_epsilon", config.norm_eps},
      {"feed_forward_proj", feed_forward},
      {"is_encoder_decoder", true},
      {"tie_word_embeddings", config.tied_embeddings},
      {"scale_decoder_outputs", config.logits_scale != 1},
      {"decoder_start_token_id", config.decoder_start_token},
      {"pad_token_id", config.decoder_start_token},
  };
  add_end_tokens(json, config);
  json["torch_dtype"] = dtype;
  return json;
}

}  // namespace

Json config_to_json(const BackboneConfig& config, const std::string& dtype) {
  if (config.family == Family::kT5) return t5_to_json(config, dtype);
  const bool gemma = config.family == Family::kGemma3;
  const char* architecture = gemma                             ? "Gemma3ForCausalLM"
                             : config.family == Family::kQwen2 ? "Qwen2ForCausalLM"
                             : config.family == Family::kQwen3 ? "Qwen3ForCausalLM"
                                                               : "LlamaForCausalLM";
  Json json = {
      {"architectures", {architecture}},
      {"model_type", gemma ? "gemma3_text" : std::string(family_name(config.family))},
      {"vocab_size", config.vocabulary_size},
      {"hidden_size", config.d_model},
      {"intermediate_size", config.d_ff},
      {"num_hidden_layers", config.num_layers},
      {"num_attention_heads", config.num_heads},
      {"num_key_value_heads", config.num_kv_heads},
      {"head_dim", config.d_head},
      {gemma ? "hidden_activation" : "hidden_act", gemma ? "gelu_pytorch_tanh" : "silu"},
      {"max_position_embeddings", config.max_positions},
      {"rms_norm_eps", config.norm_eps},
      {"tie_word_embeddings", config.tied_embeddings},
      {"attention_bias", false},
      {"rope_theta", config.rope_theta},
  };
  if (config.family == Family::kQwen2) json.erase("attention_bias");  // its biases are no setting
  if (config.family == Family::kLlama) json["mlp_bias"] = false;
  if (config.rope_llama3) {
    json["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", config.rope_llama3->factor},
                            {"low_freq_factor", config.rope_llama3->low_freq_factor},
                            {"high_freq_factor", config.rope_llama3->high_freq_factor},
                            {"original_max_position_embeddings", config.rope_llama3->original_positions}};
  } else if (config.rope_linear_factor != 1) {
    json["rope_scaling"] = {{"rope_type", "linear"}, {"factor", config.rope_linear_factor}};
  }
  if (gemma) {
    json["rope_local_base_freq"] = config.rope_theta_local;
    const double scalar = 1 / (config.query_scale * config.query_scale);
    json["query_pre_attn_scalar"] = static_cast<std::int64_t>(std::llround(scalar));
    json["use_bidirectional_attention"] = false;
  }
  if (!config.layer_is_sliding.empty()) {
    if (!gemma) json["use_sliding_window"] = true;
    json["sliding_window"] = config.sliding_window;
    Json types = Json::array();
    for (const bool sliding : config.layer_is_sliding)
      types.push_back(sliding ? "sliding_attention" : "full_attention");
    json["layer_types"] = std::move(types);
  }
  // Text is framed by Skein and by the tokenizer, not by the configuration; the class's defaults are another
  // vocabulary's.
  json["bos_token_id"] = nullptr;
  json["pad_token_id"] = nullptr;
  add_end_tokens(json, config);
  json["torch_dtype"] = dtype;
  return json;
}

}  // namespace skein
