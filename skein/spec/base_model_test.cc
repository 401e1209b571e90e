#include "skein/spec/base_model.h"

#include <algorithm>

#include "skein/base/half.h"
#include "skein/io/fault_env.h"
#include "skein/spec/tiny_base.h"

namespace skein {
namespace {

using testing::expect_error;
using testing::FolderEdit;
using testing::put_base_folder;
using testing::put_file;
using testing::tiny_config;
using testing::tiny_gguf;

constexpr Family kFamilies[] = {Family::kLlama, Family::kQwen2, Family::kQwen3, Family::kGemma3, Family::kT5};

std::vector<float> values_of(const Checkpoint& weights, const std::string& name) {
  const TensorInfo* info = weights.find(name);
  EXPECT_NE(info, nullptr) << name;
  if (info == nullptr) return {};
  std::vector<float> values(static_cast<std::size_t>(*checked_numel(info->shape)));
  or_throw(weights.read(name, DType::kF32, std::as_writable_bytes(std::span(values))));
  return values;
}

void expect_tiny_weights(const BaseModel& base, const BackboneConfig& config) {
  for (const auto& [name, values] : testing::tiny_tensors(config))
    EXPECT_EQ(values_of(*base.weights, name), values) << name;
}

// A folder with one change, opened.
Result<BaseModel> edited(const FolderEdit& edit, const BackboneConfig& config = tiny_config()) {
  const auto env = make_memory_env();
  put_base_folder(*env, "base", config, edit);
  return open_base_model(*env, "base");
}

NamedTensor& tensor(std::vector<NamedTensor>& tensors, const std::string& name) {
  return *std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name == name; });
}

TEST(BaseModel, IsTheSameFromAFolderAndFromGguf) {
  for (const Family family : kFamilies) {
    const BackboneConfig config = tiny_config(family);
    const auto env = make_memory_env();
    put_base_folder(*env, "base", config);
    put_file(*env, "base.gguf", tiny_gguf(config).bytes());
    expect_tiny_weights(or_throw(open_base_model(*env, "base")), config);
    expect_tiny_weights(or_throw(open_base_model(*env, "base.gguf")), config);
  }
}

TEST(BaseModel, ReadsPermutedGgufRowsInEveryType) {
  const BackboneConfig config = tiny_config();
  const auto env = testing::env_with("m.gguf", tiny_gguf(config).bytes());
  const BaseModel base = or_throw(open_base_model(*env, "m.gguf"));
  const std::string name = "model.layers.1.self_attn.k_proj.weight";
  const std::vector<float> expected = testing::tiny_tensors(config).at(name);
  std::vector<std::uint16_t> halves(expected.size());
  or_throw(base.weights->read(name, DType::kBF16, std::as_writable_bytes(std::span(halves))));
  for (std::size_t i = 0; i < halves.size(); ++i) EXPECT_EQ(bf16_to_f32(halves[i]), expected[i]) << i;
  EXPECT_FALSE(base.weights->view(name).has_value());  // the file's own bytes have another order
  EXPECT_TRUE(base.weights->view("model.layers.1.self_attn.v_proj.weight").has_value());
}

TEST(BaseModel, GivesGemmasGgufNormsWithoutTheOneAndNoView) {
  const auto env = testing::env_with("m.gguf", tiny_gguf(tiny_config(Family::kGemma3)).bytes());
  const BaseModel base = or_throw(open_base_model(*env, "m.gguf"));
  EXPECT_FALSE(base.weights->view("model.norm.weight").has_value());
}

TEST(BaseModel, AcceptsTheSpellingsOfImageModelsAndBareModels) {
  struct Case {
    const char* from;
    const char* to;
  };
  for (const Case& spelling :
       {Case{"", "language_model."}, Case{"model.", "model.language_model."}, Case{"model.", ""}}) {
    FolderEdit edit;
    edit.tensors = [&](auto& tensors) {
      for (NamedTensor& t : tensors) {
        if (t.name.starts_with(spelling.from))
          t.name = spelling.to + t.name.substr(std::string_view(spelling.from).size());
      }
    };
    const Result<BaseModel> base = edited(edit, tiny_config(Family::kGemma3));
    ASSERT_TRUE(base.ok()) << base.error().message;
    EXPECT_EQ(base->weights->tensors().size(), tensor_names(base->config).size());
  }
}

TEST(BaseModel, FindsATiedMatrixUnderAnyOfItsNames) {
  FolderEdit edit;
  edit.tensors = [](auto& tensors) { tensor(tensors, "model.embed_tokens.weight").name = "lm_head.weight"; };
  const BackboneConfig config = tiny_config();
  const auto env = make_memory_env();
  put_base_folder(*env, "base", config, edit);
  expect_tiny_weights(or_throw(open_base_model(*env, "base")), config);
}

TEST(BaseModel, LetsAHeadInAT5FileCountWhateverItsConfigSays) {
  FolderEdit tied;
  tied.config = [](Json& json) { json["tie_word_embeddings"] = true; };
  EXPECT_FALSE(or_throw(edited(tied, tiny_config(Family::kT5))).config.tied_embeddings);
  FolderEdit headless;
  headless.tensors = [](auto& tensors) { tensors.pop_back(); };
  EXPECT_TRUE(or_throw(edited(headless, tiny_config(Family::kT5))).config.tied_embeddings);
}

TEST(BaseModel, PutsTheEndTokensOfGenerationFirst) {
  const auto env = make_memory_env();
  put_base_folder(*env, "base", tiny_config());
  put_file(*env, "base/generation_config.json", R"({"eos_token_id": [7, 2, 9]})");
  EXPECT_EQ(or_throw(open_base_model(*env, "base")).config.eos_tokens, (std::vector<std::int64_t>{7, 2, 9}));
  put_file(*env, "base/generation_config.json", R"({"eos_token_id": "end"})");
  expect_error(open_base_model(*env, "base"), "generation_config.json");
}

TEST(BaseModel, NamesAMissingTensor) {
  FolderEdit edit;
  edit.tensors = [](auto& tensors) { tensors.erase(tensors.begin() + 5); };
  expect_error(edited(edit), "no tensor model.layers.0.self_attn.o_proj.weight");
  auto file = tiny_gguf(tiny_config());
  file.tensors.erase("blk.1.ffn_up.weight");
  expect_error(open_base_model(*testing::env_with("m.gguf", file.bytes()), "m.gguf"), "blk.1.ffn_up.weight");
}

TEST(BaseModel, NamesATensorOfAnotherShapeWithBothShapes) {
  FolderEdit edit;
  edit.tensors = [](auto& tensors) { tensor(tensors, "model.layers.0.mlp.up_proj.weight").tensor.shape = {12, 20}; };
  expect_error(edited(edit), "(12, 20); expected (20, 12)");
  auto file = tiny_gguf(tiny_config());
  file.tensors["blk.0.ffn_up.weight"].first = {12, 20};
  expect_error(open_base_model(*testing::env_with("m.gguf", file.bytes()), "m.gguf"), "(12, 20); expected (20, 12)");
}

TEST(BaseModel, RefusesQuantisedExports) {
  std::vector<std::uint8_t> bytes(240);
  FolderEdit edit;
  edit.tensors = [&](auto& tensors) {
    tensor(tensors, "model.layers.0.mlp.up_proj.weight").tensor = {
        DType::kU8, {20, 12}, std::as_bytes(std::span(bytes))};
  };
  expect_error(edited(edit), "stored as U8");
}

TEST(BaseModel, RefusesAPickleWithTheWayOut) {
  const auto env = make_memory_env();
  put_base_folder(*env, "base", tiny_config());
  or_throw(env->remove_file("base/model.safetensors"));
  put_file(*env, "base/pytorch_model.bin", "PK");
  expect_error(open_base_model(*env, "base"), "pickle");
}

TEST(BaseModel, SaysWhenItWasGivenAnAdapterOrNothing) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("adapter"));
  put_file(*env, "adapter/adapter_config.json", "{}");
  expect_error(open_base_model(*env, "adapter"), "--adapter");
  expect_error(open_base_model(*env, "nowhere"), "nowhere");
}

TEST(BaseFingerprint, IsThatOfTheValuesNotOfTheFile) {
  for (const Family family : kFamilies) {
    const BackboneConfig config = tiny_config(family);
    const auto env = make_memory_env();
    put_base_folder(*env, "base", config);
    put_file(*env, "base.gguf", tiny_gguf(config).bytes());
    const std::string of_folder = or_throw(base_fingerprint(*env, or_throw(open_base_model(*env, "base"))));
    EXPECT_EQ(of_folder.size(), 32u);
    EXPECT_EQ(or_throw(base_fingerprint(*env, or_throw(open_base_model(*env, "base.gguf")))), of_folder);
  }
}

TEST(BaseFingerprint, ChangesWithOneValue) {
  const auto env = make_memory_env();
  put_base_folder(*env, "a", tiny_config());
  std::vector<float> values = testing::tiny_tensors(tiny_config()).at("model.norm.weight");
  values[3] += 0.5f;
  FolderEdit edit;
  edit.tensors = [&](auto& tensors) {
    tensor(tensors, "model.norm.weight").tensor.bytes = std::as_bytes(std::span(values));
  };
  put_base_folder(*env, "b", tiny_config(), edit);
  EXPECT_NE(or_throw(base_fingerprint(*env, or_throw(open_base_model(*env, "a")))),
            or_throw(base_fingerprint(*env, or_throw(open_base_model(*env, "b")))));
}

TEST(BaseFingerprint, IsKeptUntilTheFileChanges) {
  setenv("XDG_CACHE_HOME", "/cache", 1);
  const auto env = make_memory_env();
  put_base_folder(*env, "base", tiny_config());
  const BaseModel base = or_throw(open_base_model(*env, "base"));
  const std::string fingerprint = or_throw(base_fingerprint(*env, base));
  const auto entries = or_throw(env->list("/cache/skein/fingerprints"));
  ASSERT_EQ(entries.size(), 1u);
  const std::string planted(32, 'a');
  put_file(*env, "/cache/skein/fingerprints/" + entries[0], planted);
  EXPECT_EQ(or_throw(base_fingerprint(*env, base)), planted);  // read, not computed
  put_file(*env, "/cache/skein/fingerprints/" + entries[0], "damaged");
  EXPECT_EQ(or_throw(base_fingerprint(*env, base)), fingerprint);
  put_base_folder(*env, "base", tiny_config());  // same bytes, another time: computed anew
  put_file(*env, "/cache/skein/fingerprints/" + entries[0], planted);
  EXPECT_EQ(or_throw(base_fingerprint(*env, or_throw(open_base_model(*env, "base")))), fingerprint);
  unsetenv("XDG_CACHE_HOME");
}

TEST(BaseFingerprint, NeedsNoCacheThatCanBeWritten) {
  const auto inner = make_memory_env();
  put_base_folder(*inner, "base", tiny_config());
  const auto env = make_fault_env(*inner);
  env->set_plan({.fail_at_operation = 0});
  EXPECT_TRUE(base_fingerprint(*env, or_throw(open_base_model(*env, "base"))).ok());
}

}  // namespace
}  // namespace skein
