// config.json and GGUF metadata, read into one struct, and written back.
#include "skein/spec/backbone_config.h"

#include <cmath>

#include "skein/spec/base_model.h"
#include "skein/spec/tiny_base.h"

namespace skein {
namespace {

using testing::expect_error;
using testing::golden_path;
using testing::tiny_config;
using testing::tiny_gguf;

constexpr Family kFamilies[] = {Family::kLlama, Family::kQwen2, Family::kQwen3, Family::kGemma3, Family::kT5};

BackboneConfig golden_config(const std::string& name) {
  const std::string path = golden_path("models/" + name + "/config.json");
  return or_throw(config_from_json(or_throw(read_json_file(real_env(), path)), path));
}

Result<BackboneConfig> edited(const std::function<void(Json&)>& edit, Family family = Family::kLlama) {
  Json json = config_to_json(tiny_config(family), "float32");
  edit(json);
  return config_from_json(json, "config.json");
}

Result<BackboneConfig> from_gguf(const testing::TinyGguf& file) {
  const auto env = testing::env_with("m.gguf", file.bytes());
  return config_from_gguf(*or_throw(GgufFile::open(*env, "m.gguf")));
}

// All fields, so that two configs are compared as wholes.
std::string spelled(const BackboneConfig& c) {
  std::string text =
      concat(config_to_json(c, "float32").dump(), " scale ", c.query_scale, " embedding ", c.embedding_scale, " bias ",
             c.qkv_bias, " qk ", c.qk_norm, " one ", c.norm_adds_one, " logits ", c.logits_scale, " local ",
             c.rope_theta_local, " activation ", static_cast<int>(c.activation));
  return text;
}

TEST(BackboneConfig, ReadsLlama3RopeAsTransformersWritesIt) {
  const BackboneConfig c = golden_config("llama31");
  EXPECT_EQ(c.family, Family::kLlama);
  EXPECT_EQ(c.d_head, 16);
  EXPECT_EQ(c.rope_theta, 500);
  ASSERT_TRUE(c.rope_llama3.has_value());
  EXPECT_EQ(c.rope_llama3->factor, 4);
  EXPECT_EQ(c.rope_llama3->original_positions, 32);
  EXPECT_EQ(c.query_scale, 0.25);
}

TEST(BackboneConfig, ReadsGemmasTwoRopesWindowsAndScales) {
  const BackboneConfig c = golden_config("gemma3");
  EXPECT_EQ(c.rope_theta, 50000);
  EXPECT_EQ(c.rope_theta_local, 500);
  EXPECT_EQ(c.rope_linear_factor, 4);
  EXPECT_EQ(c.sliding_window, 8);
  EXPECT_EQ(c.layer_is_sliding, (std::vector<bool>{true, true, true, true, true, false}));
  EXPECT_DOUBLE_EQ(c.query_scale, 1 / std::sqrt(24.0));
  EXPECT_DOUBLE_EQ(c.embedding_scale, std::sqrt(40.0));
  EXPECT_TRUE(c.norm_adds_one);
}

TEST(BackboneConfig, TellsT5sTwoVersionsApart) {
  const BackboneConfig old = golden_config("t5_v10"), v11 = golden_config("t5_v11");
  EXPECT_FALSE(old.gated_ff);
  EXPECT_EQ(old.activation, Activation::kRelu);
  EXPECT_DOUBLE_EQ(old.logits_scale, 1 / std::sqrt(static_cast<double>(old.d_model)));
  EXPECT_TRUE(v11.gated_ff);
  EXPECT_EQ(v11.activation, Activation::kGeluTanh);
  EXPECT_EQ(v11.logits_scale, 1);
  EXPECT_EQ(v11.num_layers, 2);
  EXPECT_EQ(v11.num_decoder_layers, 3);
}

TEST(BackboneConfig, ComesBackFromItsOwnJson) {
  for (const Family family : kFamilies) {
    BackboneConfig config = tiny_config(family);
    if (family == Family::kLlama) config.rope_llama3 = BackboneConfig::Llama3Rope{8, 1, 4, 8192};
    if (family == Family::kQwen2) config.rope_linear_factor = 2;
    const Json json = config_to_json(config, "float32");
    EXPECT_EQ(spelled(or_throw(config_from_json(json, "config.json"))), spelled(config)) << family_name(family);
  }
}

TEST(BackboneConfig, IsTheSameFromGgufMetadata) {
  for (const Family family : kFamilies) {
    const BackboneConfig config = tiny_config(family);
    BackboneConfig expected = config;
    if (family == Family::kT5) expected.relative_max_distance = 128;  // in no key
    EXPECT_EQ(spelled(or_throw(from_gguf(tiny_gguf(config)))), spelled(expected)) << family_name(family);
  }
}

TEST(BackboneConfig, ReadsTheTextHalfOfAnImageModelWithItsLeftOutSizes) {
  const Json json = {
      {"model_type", "gemma3"},
      {"text_config", {{"hidden_size", 2560}, {"num_hidden_layers", 34}, {"model_type", "gemma3_text"}}}};
  const BackboneConfig c = or_throw(config_from_json(json, "config.json"));
  EXPECT_EQ(c.d_model, 2560);
  EXPECT_EQ(c.num_heads, 8);
  EXPECT_EQ(c.vocabulary_size, 262208);
  EXPECT_TRUE(c.tied_embeddings);
  EXPECT_FALSE(c.layer_is_sliding[5]);
  EXPECT_TRUE(c.layer_is_sliding[6]);
}

TEST(BackboneConfig, GivesQwenTheWindowsItsFileSwitchesOn) {
  const auto config = edited(
      [](Json& json) {
        json["use_sliding_window"] = true;
        json["sliding_window"] = 16;
        json["max_window_layers"] = 1;
      },
      Family::kQwen2);
  EXPECT_EQ(or_throw(config).layer_is_sliding, (std::vector<bool>{false, true}));
  EXPECT_TRUE(
      or_throw(edited([](Json& json) { json["sliding_window"] = 16; }, Family::kQwen2)).layer_is_sliding.empty());
}

TEST(BackboneConfig, NamesAnUnknownModelType) {
  expect_error(edited([](Json& json) { json["model_type"] = "mamba\n2"; }), "mamba\\x0a2");
  expect_error(edited([](Json& json) { json.erase("model_type"); }), "model_type");
  expect_error(config_from_json(Json::array(), "config.json"), "not a JSON object");
}

TEST(BackboneConfig, NamesAMissingOrMistypedField) {
  expect_error(edited([](Json& json) { json.erase("hidden_size"); }), "hidden_size");
  expect_error(edited([](Json& json) { json["num_hidden_layers"] = "two"; }), "num_hidden_layers");
  expect_error(edited(
                   [](Json& json) {
                     json["layer_types"] = Json::array({"round_attention", "x"});
                   },
                   Family::kGemma3),
               "round_attention");
  expect_error(edited([](Json& json) { json["eos_token_id"] = Json::array({"end"}); }), "eos_token_id");
}

TEST(BackboneConfig, RefusesWhatItWouldComputeWrongly) {
  expect_error(edited([](Json& json) { json["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4}}; }), "yarn");
  expect_error(edited([](Json& json) { json["hidden_act"] = "relu6"; }), "relu6");
  expect_error(edited([](Json& json) { json["attention_bias"] = true; }), "attention_bias");
  expect_error(edited([](Json& json) { json["partial_rotary_factor"] = 0.5; }), "partial_rotary_factor");
  expect_error(edited([](Json& json) {
                 json["quantization_config"] = {{"quant_method", "gptq"}};
               }),
               "quantization_config");
  expect_error(edited([](Json& json) { json["final_logit_softcapping"] = 30.0; }, Family::kGemma3),
               "final_logit_softcapping");
  expect_error(edited([](Json& json) { json["feed_forward_proj"] = "gated-swoosh"; }, Family::kT5), "gated-swoosh");
}

TEST(BackboneConfig, RefusesSizesThatCannotBe) {
  expect_error(edited([](Json& json) { json["num_attention_heads"] = 0; }), "attention heads");
  expect_error(edited([](Json& json) { json["num_key_value_heads"] = 3; }), "share");
  expect_error(edited([](Json& json) { json["hidden_size"] = -12; }), "width");
  expect_error(edited([](Json& json) { json["vocab_size"] = std::int64_t{1} << 60; }), "vocabulary");
  expect_error(edited([](Json& json) { json["num_hidden_layers"] = 1000000000; }, Family::kGemma3), "layers");
  expect_error(edited([](Json& json) { json["head_dim"] = 5; }), "head size");
  expect_error(edited([](Json& json) { json["layer_types"] = Json::array({"full_attention"}); }, Family::kGemma3),
               "layer types");
  expect_error(edited([](Json& json) { json["sliding_window"] = 0; }, Family::kGemma3), "window");
}

TEST(GgufConfig, NamesAnArchitectureItDoesNotRun) {
  auto file = tiny_gguf(tiny_config());
  file.pairs.replace(file.pairs.find("llama"), 5, "mamba");
  expect_error(from_gguf(file), "mamba");
}

TEST(GgufConfig, RefusesPartialRotationOtherScalingsAndExperts) {
  auto partial = tiny_gguf(tiny_config());
  partial.integer("rope.dimension_count", 2);
  expect_error(from_gguf(partial), "2 of 4");
  auto yarn = tiny_gguf(tiny_config());
  yarn.text("llama.rope.scaling.type", "yarn");
  expect_error(from_gguf(yarn), "yarn");
  auto experts = tiny_gguf(tiny_config());
  experts.integer("expert_count", 8);
  expect_error(from_gguf(experts), "mixture-of-experts");
}

TEST(GgufConfig, FindsTheFactorBehindLlama3sDivisors) {
  BackboneConfig config = tiny_config();
  config.d_head = 64;
  config.rope_theta = 500000;
  auto file = tiny_gguf(config);
  // transformers' _compute_llama3_parameters with factor 32, low 1, high 4, 8192 positions.
  std::vector<float> divisors;
  for (int i = 0; i < 32; ++i) {
    const double wavelength = 2 * M_PI * std::pow(500000.0, 2.0 * i / 64);
    const double smooth = (8192 / wavelength - 1) / 3;
    divisors.push_back(static_cast<float>(wavelength < 2048   ? 1
                                          : wavelength > 8192 ? 32
                                                              : 1 / ((1 - smooth) / 32 + smooth)));
  }
  file.tensors["rope_freqs.weight"] = {{32}, divisors};
  const BackboneConfig read = or_throw(from_gguf(file));
  ASSERT_TRUE(read.rope_llama3.has_value());
  EXPECT_EQ(read.rope_llama3->factor, 32);
  EXPECT_EQ(read.rope_llama3->original_positions, 8192);
  file.tensors["rope_freqs.weight"].second[20] -= 1;
  expect_error(from_gguf(file), "rope_freqs.weight[20]");
}

TEST(GgufConfig, RefusesAFileWithoutAnEmbedding) {
  auto file = tiny_gguf(tiny_config());
  file.tensors.erase("token_embd.weight");
  expect_error(from_gguf(file), "token_embd.weight");
}

}  // namespace
}  // namespace skein
