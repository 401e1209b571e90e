// llama.cpp's metadata keys ("llama.block_count") and what its converters leave to be known from the tensors.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

#include "skein/base/concat.h"
#include "skein/spec/backbone_config.h"
#include "skein/spec/first_error.h"
#include "skein/spec/gguf_export.h"

namespace skein {
namespace {

// GGUF keeps f32: 1e-5 arrives as 9.999999747378752e-06. The shortest decimal of the same float is what was meant.
double as_written(double from_f32) {
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof(digits), static_cast<float>(from_f32)).ptr;
  double value = from_f32;
  std::from_chars(digits, end, value);
  return value;
}

// Reads keys of the architecture.
class Metadata : public FirstError {
 public:
  Metadata(const GgufFile& file, std::string architecture)
      : FirstError(file.path()), file_(file), architecture_(std::move(architecture)) {}

  std::int64_t integer(const std::string& key, std::optional<std::int64_t> otherwise = std::nullopt) {
    return keep(file_.integer(concat(architecture_, ".", key), otherwise));
  }
  double number(const std::string& key, std::optional<double> otherwise = std::nullopt) {
    return as_written(keep(file_.number(concat(architecture_, ".", key), otherwise)));
  }
  std::string text(const std::string& key, const std::string& otherwise) {
    return keep(file_.text(concat(architecture_, ".", key), otherwise));
  }
  bool has(const std::string& key) const { return file_.find(concat(architecture_, ".", key)) != nullptr; }

 private:
  const GgufFile& file_;
  std::string architecture_;
};

// Llama 3 files hold the divisors of the frequencies as a tensor and none of the numbers behind them. All Llama 3
// models share (1, 4, 8192) and differ in the factor, which is the largest divisor; the tensor is the proof.
void read_llama3_rope(const GgufFile& file, Metadata& metadata, BackboneConfig& out) {
  const GgufTensor* tensor = file.find_tensor("rope_freqs.weight");
  if (tensor == nullptr || !metadata.status().ok() || out.d_head < 2) return;
  if (tensor->shape != Shape{out.d_head / 2}) {
    return metadata.fail(
        concat("rope_freqs.weight has shape ", to_string(tensor->shape), "; expected (", out.d_head / 2, ")"));
  }
  std::vector<float> divisors(static_cast<std::size_t>(out.d_head / 2));
  dequantize_rows(*tensor, 0, 1, divisors.data());
  const double factor = *std::max_element(divisors.begin(), divisors.end());
  const BackboneConfig::Llama3Rope rope{std::round(factor * 1000) / 1000, 1, 4, 8192};
  for (std::size_t pair_idx = 0; pair_idx < divisors.size(); ++pair_idx) {
    const double expected = llama3_divisor(rope, out.rope_theta, out.d_head, static_cast<std::int64_t>(pair_idx));
    if (!(std::abs(divisors[pair_idx] - expected) <= 1e-3 * expected)) {
      return metadata.fail(concat("rope_freqs.weight[", pair_idx, "] is ", divisors[pair_idx],
                                  "; Llama 3's rule gives ", expected,
                                  "; another rope scaling, which Skein does not compute"));
    }
  }
  out.rope_llama3 = rope;
}

void read_rope(const GgufFile& file, Metadata& metadata, BackboneConfig& out) {
  out.rope_theta = metadata.number("rope.freq_base", out.family == Family::kGemma3 ? 1e6 : 1e4);
  out.rope_theta_local = metadata.number("rope.freq_base_swa", 1e4);
  const std::string type = metadata.text("rope.scaling.type", "none");
  if (type == "linear") {
    out.rope_linear_factor = metadata.number("rope.scaling.factor");
  } else if (type != "none") {
    metadata.fail(concat("rope scaling \"", printable(type), "\"; Skein computes none, linear and Llama 3's"));
  }
  // Old files spell linear scaling alone.
  if (metadata.has("rope.scale_linear")) out.rope_linear_factor = metadata.number("rope.scale_linear");
  const std::int64_t rotated = metadata.integer("rope.dimension_count", out.d_head);
  if (rotated != out.d_head) {
    metadata.fail(
        concat("rotary embedding of ", rotated, " of ", out.d_head, " dimensions of a head; Skein rotates all"));
  }
  read_llama3_rope(file, metadata, out);
}

void read_gemma3(Metadata& metadata, BackboneConfig& out) {
  out.activation = Activation::kGeluTanh;
  out.norm_adds_one = true;
  out.embedding_scale = std::sqrt(static_cast<double>(std::max<std::int64_t>(out.d_model, 0)));
  out.sliding_window = metadata.integer("attention.sliding_window");
  const std::int64_t pattern = metadata.integer("attention.sliding_window_pattern", 6);
  if (pattern < 1) return metadata.fail(concat("sliding window pattern is ", pattern, "; expected 1 or more"));
  if (out.num_layers < 1 || out.num_layers > 4096) return;  // check_config says so
  for (std::int64_t layer_idx = 0; layer_idx < out.num_layers; ++layer_idx) {
    out.layer_is_sliding.push_back((layer_idx + 1) % pattern != 0);
  }
  // query_pre_attn_scalar is in no key. As llama.cpp: the head size, but for the 27B model (62 layers) width / heads.
  if (out.num_layers == 62 && out.num_heads > 0) {
    out.query_scale = 1 / std::sqrt(static_cast<double>(out.d_model) / static_cast<double>(out.num_heads));
  }
  if (metadata.has("final_logit_softcapping")) metadata.fail("soft-capped logits; Skein does not compute that");
}

void read_t5(const GgufFile& file, Metadata& metadata, BackboneConfig& out) {
  out.num_decoder_layers = metadata.integer("decoder_block_count", out.num_layers);
  out.query_scale = 1;
  out.relative_buckets = metadata.integer("attention.relative_buckets_count", 32);
  out.decoder_start_token = metadata.integer("decoder_start_token_id", 0);
  out.gated_ff = file.find_tensor("enc.blk.0.ffn_gate.weight") != nullptr;
  out.activation = out.gated_ff ? Activation::kGeluTanh : Activation::kRelu;
  if (out.tied_embeddings && out.d_model > 0) out.logits_scale = 1 / std::sqrt(static_cast<double>(out.d_model));
}

std::optional<Family> family_of(const std::string& architecture) {
  for (const Family family : {Family::kLlama, Family::kQwen2, Family::kQwen3, Family::kGemma3, Family::kT5}) {
    if (architecture == family_name(family)) return family;
  }
  return std::nullopt;
}

}  // namespace

double llama3_divisor(const BackboneConfig::Llama3Rope& rope, double theta, std::int64_t d_head,
                      std::int64_t pair_idx) {
  const double wavelength =
      2 * std::numbers::pi * std::pow(theta, 2.0 * static_cast<double>(pair_idx) / static_cast<double>(d_head));
  const auto positions = static_cast<double>(rope.original_positions);
  if (wavelength < positions / rope.high_freq_factor) return 1;
  if (wavelength > positions / rope.low_freq_factor) return rope.factor;
  const double smooth =
      (positions / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return 1 / ((1 - smooth) / rope.factor + smooth);
}

Result<BackboneConfig> config_from_gguf(const GgufFile& file) {
  SKEIN_ASSIGN(const std::string architecture, file.text("general.architecture"));
  const std::optional<Family> family = family_of(architecture);
  if (!family) {
    return Error{concat(file.path(), ": architecture \"", printable(architecture),
                        "\"; Skein runs llama, qwen2, qwen3, gemma3 and t5")};
  }
  Metadata metadata(file, architecture);
  if (metadata.integer("expert_count", 0) != 0) metadata.fail("a mixture-of-experts base; Skein runs dense ones");
  BackboneConfig out;
  out.family = *family;
  out.num_layers = metadata.integer("block_count");
  out.d_model = metadata.integer("embedding_length");
  out.d_ff = metadata.integer("feed_forward_length");
  out.num_heads = metadata.integer("attention.head_count");
  out.num_kv_heads = metadata.integer("attention.head_count_kv", out.num_heads);
  out.d_head = metadata.integer("attention.key_length", out.num_heads > 0 ? out.d_model / out.num_heads : 0);
  if (const std::int64_t d_value = metadata.integer("attention.value_length", out.d_head); d_value != out.d_head) {
    metadata.fail(concat("keys of ", out.d_head, " and values of ", d_value, "; Skein computes heads of one size"));
  }
  out.max_positions = metadata.integer("context_length");
  out.norm_eps =
      metadata.number("attention.layer_norm_rms_epsilon", metadata.number("attention.layer_norm_epsilon", 1e-6));
  out.query_scale = 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(out.d_head, 1)));
  out.qkv_bias = *family == Family::kQwen2;
  out.qk_norm = *family == Family::kQwen3 || *family == Family::kGemma3;
  out.tied_embeddings = file.find_tensor("output.weight") == nullptr;

  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) {
    return Error{
        concat(file.path(), ": no matrix token_embd.weight; the file holds no language model, or only a part of one")};
  }
  out.vocabulary_size = embedding->shape[0];
  if (*family == Family::kT5) {
    read_t5(file, metadata, out);
  } else {
    if (*family == Family::kGemma3) read_gemma3(metadata, out);
    read_rope(file, metadata, out);
  }
  SKEIN_ASSIGN(const std::int64_t eos, file.integer("tokenizer.ggml.eos_token_id", -1));
  if (eos >= 0) out.eos_tokens.push_back(eos);
  if (!metadata.status().ok()) return metadata.status().error();
  SKEIN_TRY(check_config(out, file.path()));
  return out;
}

}  // namespace skein
