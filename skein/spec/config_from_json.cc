// config.json as transformers writes it, in its old (rope_theta, rope_scaling) and new (rope_parameters) spelling.
#include <cmath>

#include "skein/base/concat.h"
#include "skein/spec/backbone_config.h"
#include "skein/spec/first_error.h"

namespace skein {
namespace {

// Reads fields of one object.
class Fields : public FirstError {
 public:
  Fields(const Json& json, std::string where) : FirstError(std::move(where)), json_(json) {}

  std::int64_t integer(const char* key, std::optional<std::int64_t> otherwise = std::nullopt) {
    return keep(json_integer(json_, key, otherwise, where()));
  }
  double number(const char* key, std::optional<double> otherwise = std::nullopt) {
    return keep(json_number(json_, key, otherwise, where()));
  }
  bool boolean(const char* key, bool otherwise) { return keep(json_bool(json_, key, otherwise, where())); }
  std::string text(const char* key, std::optional<std::string> otherwise) {
    return keep(json_string(json_, key, std::move(otherwise), where()));
  }
  // Null if absent or null.
  const Json* find(const char* key) const {
    const auto it = json_.find(key);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }
  // What Skein does not compute must be absent, null, false or 0.
  void refuse(const char* key) {
    const Json* value = find(key);
    if (value == nullptr || (value->is_boolean() && !value->get<bool>())) return;
    if (value->is_number() && value->get<double>() == 0) return;
    fail(concat(key, " is ", printable(value->dump(-1, ' ', true)), "; Skein does not compute that"));
  }

 private:
  const Json& json_;
};

// One rope entry: {"rope_type" or "type", "rope_theta", "factor", ...}. sets_theta: Gemma's sliding layers have their
// own.
void read_rope(Fields& config, const Json& entry, double& theta, BackboneConfig& out, bool only_default) {
  if (!entry.is_object()) return config.fail("a rope setting is not an object");
  Fields rope(entry, concat(config.where(), ": rope"));
  const std::string type = rope.text("rope_type", rope.text("type", "default"));
  theta = rope.number("rope_theta", theta);
  if (const double part = rope.number("partial_rotary_factor", 1.0); part != 1.0) rope.refuse("partial_rotary_factor");
  if (type == "linear" && !only_default) {
    out.rope_linear_factor = rope.number("factor");
  } else if (type == "llama3" && !only_default) {
    out.rope_llama3 = BackboneConfig::Llama3Rope{rope.number("factor"), rope.number("low_freq_factor"),
                                                 rope.number("high_freq_factor"),
                                                 rope.integer("original_max_position_embeddings", out.max_positions)};
    if (rope.status().ok() && !(out.rope_llama3->factor >= 1 && out.rope_llama3->low_freq_factor > 0 &&
                                out.rope_llama3->high_freq_factor > out.rope_llama3->low_freq_factor &&
                                out.rope_llama3->original_positions > 0)) {
      rope.fail(
          "llama3 scaling with factors that cannot be; expected factor >= 1 and 0 < low_freq_factor < "
          "high_freq_factor");
    }
  } else if (type != "default") {
    rope.fail(concat("type \"", printable(type), "\"; Skein computes default, linear and llama3"));
  }
  if (!rope.status().ok() && config.status().ok()) config.fail(rope.status().error().message);
}

void read_rope_settings(Fields& config, BackboneConfig& out) {
  const bool two_bases = out.family == Family::kGemma3;
  out.rope_theta = config.number("rope_theta", two_bases ? 1e6 : 1e4);
  if (two_bases) out.rope_theta_local = config.number("rope_local_base_freq", 1e4);
  if (const double part = config.number("partial_rotary_factor", 1.0); part != 1.0)
    config.refuse("partial_rotary_factor");
  const Json* scaling = config.find("rope_scaling");
  if (scaling == nullptr) scaling = config.find("rope_parameters");
  if (scaling == nullptr) return;
  const auto full = scaling->is_object() ? scaling->find("full_attention") : scaling->end();
  if (two_bases && scaling->is_object() && full != scaling->end()) {
    if (!full->is_null()) read_rope(config, *full, out.rope_theta, out, false);
    const auto sliding = scaling->find("sliding_attention");
    if (sliding != scaling->end() && !sliding->is_null()) read_rope(config, *sliding, out.rope_theta_local, out, true);
  } else {
    read_rope(config, *scaling, out.rope_theta, out, false);
  }
}

// layer_types, or the older rules that transformers derives it from.
void read_windows(Fields& config, BackboneConfig& out) {
  const bool gemma = out.family == Family::kGemma3;
  if (!gemma && !config.boolean("use_sliding_window", false)) return;
  out.sliding_window = config.integer("sliding_window", 4096);
  if (config.status().ok() && (out.num_layers < 1 || out.num_layers > 4096)) return;  // check_config says so
  if (const Json* types = config.find("layer_types")) {
    if (!types->is_array()) return config.fail("layer_types is not an array");
    for (const Json& type : *types) {
      const std::string name = type.is_string() ? type.get<std::string>() : type.dump(-1, ' ', true);
      if (name != "sliding_attention" && name != "full_attention") {
        return config.fail(
            concat("layer type ", printable(name), "; Skein computes sliding_attention and full_attention"));
      }
      out.layer_is_sliding.push_back(name == "sliding_attention");
    }
    return;
  }
  const std::int64_t pattern = gemma ? config.integer("sliding_window_pattern", 6) : 1;
  const std::int64_t first_sliding = gemma ? 0 : config.integer("max_window_layers", 28);
  if (pattern < 1) return config.fail(concat("sliding_window_pattern is ", pattern, "; expected 1 or more"));
  for (std::int64_t layer_idx = 0; layer_idx < out.num_layers; ++layer_idx) {
    out.layer_is_sliding.push_back(gemma ? (layer_idx + 1) % pattern != 0 : layer_idx >= first_sliding);
  }
}

void read_end_tokens(Fields& config, BackboneConfig& out) {
  const Json* eos = config.find("eos_token_id");
  if (eos == nullptr) return;
  const Json list = eos->is_array() ? *eos : Json::array({*eos});
  for (const Json& id : list) {
    if (!id.is_number_integer()) return config.fail("eos_token_id is not an integer or a list of integers");
    out.eos_tokens.push_back(id.get<std::int64_t>());
  }
}

BackboneConfig read_decoder(Fields& config, Family family) {
  BackboneConfig out;
  out.family = family;
  // Nested Gemma configurations leave out what equals the class's defaults; the others always spell their sizes.
  const bool gemma = family == Family::kGemma3;
  using Default = std::optional<std::int64_t>;
  const auto or_default = [&](std::int64_t value) { return gemma ? Default(value) : Default(); };
  out.num_layers = config.integer("num_hidden_layers", or_default(26));
  out.d_model = config.integer("hidden_size", or_default(2304));
  out.d_ff = config.integer("intermediate_size", or_default(9216));
  out.vocabulary_size = config.integer("vocab_size", or_default(262208));
  out.num_heads = config.integer("num_attention_heads", or_default(8));
  out.num_kv_heads = config.integer("num_key_value_heads", gemma ? 4 : out.num_heads);
  const std::int64_t even_share = out.num_heads > 0 ? out.d_model / out.num_heads : 0;
  out.d_head = config.integer("head_dim", gemma ? 256 : family == Family::kQwen3 ? 128 : even_share);
  out.max_positions = config.integer("max_position_embeddings", gemma                      ? 131072
                                                                : family == Family::kLlama ? 2048
                                                                                           : 32768);
  out.norm_eps = config.number("rms_norm_eps", 1e-6);
  out.tied_embeddings = config.boolean("tie_word_embeddings", gemma);
  out.query_scale = 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(out.d_head, 1)));

  const std::string activation =
      config.text(gemma ? "hidden_activation" : "hidden_act", gemma ? "gelu_pytorch_tanh" : "silu");
  const bool known = gemma ? activation == "gelu_pytorch_tanh" : activation == "silu" || activation == "swish";
  if (!known)
    config.fail(concat("activation \"", printable(activation), "\"; Skein computes ",
                       gemma ? "gelu_pytorch_tanh" : "silu", " here"));
  out.activation = gemma ? Activation::kGeluTanh : Activation::kSilu;

  out.qkv_bias = family == Family::kQwen2;
  out.qk_norm = gemma || family == Family::kQwen3;
  if (gemma) {
    const double scalar = config.number("query_pre_attn_scalar", 256.0);
    out.query_scale = scalar > 0 ? 1 / std::sqrt(scalar) : 0;
    out.embedding_scale = std::sqrt(static_cast<double>(out.d_model));
    out.norm_adds_one = true;
  }
  for (const char* key : {"attention_bias", "mlp_bias", "final_logit_softcapping", "attn_logit_softcapping",
                          "use_bidirectional_attention", "quantization_config"}) {
    config.refuse(key);
  }
  read_rope_settings(config, out);
  if (family != Family::kLlama) read_windows(config, out);
  return out;
}

BackboneConfig read_t5(Fields& config) {
  BackboneConfig out;
  out.family = Family::kT5;
  out.num_layers = config.integer("num_layers");
  out.num_decoder_layers = config.integer("num_decoder_layers", out.num_layers);
  out.d_model = config.integer("d_model");
  out.d_head = config.integer("d_kv");
  out.d_ff = config.integer("d_ff");
  out.num_heads = config.integer("num_heads");
  out.num_kv_heads = out.num_heads;
  out.vocabulary_size = config.integer("vocab_size");
  out.max_positions = config.integer("n_positions", 512);
  out.norm_eps = config.number("layer_norm_epsilon", 1e-6);
  out.query_scale = 1;
  out.relative_buckets = config.integer("relative_attention_num_buckets", 32);
  out.relative_max_distance = config.integer("relative_attention_max_distance", 128);
  out.decoder_start_token = config.integer("decoder_start_token_id", config.integer("pad_token_id", 0));

  const std::string feed_forward = config.text("feed_forward_proj", "relu");
  out.gated_ff = feed_forward.rfind("gated-", 0) == 0;
  if (feed_forward == "relu" || feed_forward == "gated-relu") {
    out.activation = Activation::kRelu;
  } else if (feed_forward == "gated-gelu" || feed_forward == "gated-gelu_new" || feed_forward == "gelu_new") {
    out.activation = Activation::kGeluTanh;  // transformers reads "gated-gelu" as gelu_new
  } else if (feed_forward == "gated-silu" || feed_forward == "silu") {
    out.activation = Activation::kSilu;
  } else {
    config.fail(concat("feed_forward_proj \"", printable(feed_forward),
                       "\"; Skein computes relu, gelu_new and silu, gated or not"));
  }
  // v1.0 shares its embedding with the head and scales the states before it; v1.1 does neither. Files that transformers
  // 5 wrote spell the scaling out.
  out.tied_embeddings = config.boolean("tie_word_embeddings", true);
  const bool scaled = config.boolean("scale_decoder_outputs", out.tied_embeddings);
  out.logits_scale = scaled && out.d_model > 0 ? 1 / std::sqrt(static_cast<double>(out.d_model)) : 1;
  config.refuse("quantization_config");
  return out;
}

}  // namespace

Result<BackboneConfig> config_from_json(const Json& config, const std::string& path) {
  if (!config.is_object()) return Error{concat(path, ": not a JSON object; expected a model's config.json")};
  SKEIN_ASSIGN(const std::string type, json_string(config, "model_type", std::nullopt, path));
  if (type == "gemma3") {  // image and text: the text half is the language model
    const auto text = config.find("text_config");
    if (text == config.end() || !text->is_object()) return Error{concat(path, ": gemma3 without a text_config object")};
    Json inner = *text;
    inner["model_type"] = "gemma3_text";
    for (const char* key : {"tie_word_embeddings", "eos_token_id", "quantization_config"}) {
      if (!inner.contains(key) && config.contains(key)) inner[key] = config[key];
    }
    return config_from_json(inner, path);
  }
  Fields fields(config, path);
  BackboneConfig out;
  if (type == "llama") {
    out = read_decoder(fields, Family::kLlama);
  } else if (type == "qwen2") {
    out = read_decoder(fields, Family::kQwen2);
  } else if (type == "qwen3") {
    out = read_decoder(fields, Family::kQwen3);
  } else if (type == "gemma3_text") {
    out = read_decoder(fields, Family::kGemma3);
  } else if (type == "t5") {
    out = read_t5(fields);
  } else {
    return Error{concat(path, ": model type \"", printable(type),
                        "\"; Skein runs llama, qwen2, qwen3, gemma3_text, gemma3 and t5")};
  }
  read_end_tokens(fields, out);
  if (!fields.status().ok()) return fields.status().error();
  SKEIN_TRY(check_config(out, path));
  return out;
}

}  // namespace skein
