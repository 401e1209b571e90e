// Expert folders, true ones and one per lie.
#include "skein/spec/expert_folder.h"

#include <algorithm>
#include <cmath>

#include "skein/spec/tiny_base.h"

namespace skein {
namespace {

using testing::expect_error;
using testing::golden_path;
using testing::put_file;
using testing::tiny_config;

const std::vector<SlotName> kSlots = slot_names(tiny_config());
constexpr const char* kPrefix = "base_model.model.";

std::vector<float> counted(std::int64_t count, float start) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = start + static_cast<float>(i) / 16;
  return values;
}

// Rank-2 LoRA on the q and v projections (slots 0, 2, 7, 9) of the tiny base.
LoraAdapter sample_adapter() {
  LoraAdapter adapter;
  adapter.config.rank = 2;
  adapter.config.alpha = 3;
  adapter.config.target_modules = {"q_proj", "v_proj"};
  for (const int slot_idx : {0, 2, 7, 9}) {
    const SlotName& slot = kSlots[static_cast<std::size_t>(slot_idx)];
    adapter.modules.push_back({slot_idx, 2, 1.5, counted(2 * slot.d_in, static_cast<float>(slot_idx)),
                               counted(slot.d_out * 2, -static_cast<float>(slot_idx))});
  }
  return adapter;
}

// The files of sample_adapter() with one change, read back.
struct AdapterEdit {
  std::function<void(Json&)> config = [](Json&) {};
  std::function<void(std::vector<NamedTensor>&)> tensors = [](std::vector<NamedTensor>&) {};
};
Result<LoraAdapter> edited(const AdapterEdit& edit) {
  const auto env = make_memory_env();
  const LoraAdapter adapter = sample_adapter();
  Json config = adapter_config_to_json(adapter.config);
  edit.config(config);
  or_throw(env->make_folders("expert"));
  put_file(*env, "expert/adapter_config.json", config.dump());
  std::vector<NamedTensor> tensors;
  for (const LoraTensors& module : adapter.modules) {
    const SlotName& slot = kSlots[static_cast<std::size_t>(module.slot_idx)];
    tensors.push_back({concat(kPrefix, slot.module, ".lora_A.weight"),
                       {DType::kF32, {2, slot.d_in}, std::as_bytes(std::span(module.a))}});
    tensors.push_back({concat(kPrefix, slot.module, ".lora_B.weight"),
                       {DType::kF32, {slot.d_out, 2}, std::as_bytes(std::span(module.b))}});
  }
  edit.tensors(tensors);
  or_throw(write_safetensors(*env, "expert/adapter_model.safetensors", tensors));
  return read_lora_adapter(*env, "expert", kSlots);
}
Result<LoraAdapter> with_config(std::function<void(Json&)> edit) { return edited({.config = std::move(edit)}); }
Result<LoraAdapter> with_tensors(std::function<void(std::vector<NamedTensor>&)> edit) {
  return edited({.tensors = std::move(edit)});
}

void expect_same(const LoraAdapter& got, const LoraAdapter& want) {
  ASSERT_EQ(got.modules.size(), want.modules.size());
  for (std::size_t i = 0; i < got.modules.size(); ++i) {
    EXPECT_EQ(got.modules[i].slot_idx, want.modules[i].slot_idx);
    EXPECT_EQ(got.modules[i].rank, want.modules[i].rank);
    EXPECT_EQ(got.modules[i].scale, want.modules[i].scale);
    EXPECT_EQ(got.modules[i].a, want.modules[i].a);
    EXPECT_EQ(got.modules[i].b, want.modules[i].b);
  }
}

TEST(LoraAdapterFolder, ReadsWhatPeftSaved) {
  const std::string config = golden_path("models/llama/config.json");
  const auto slots = slot_names(or_throw(config_from_json(or_throw(read_json_file(real_env(), config)), config)));
  const LoraAdapter adapter = or_throw(read_lora_adapter(real_env(), golden_path("peft/adapter"), slots));
  ASSERT_EQ(adapter.modules.size(), 9u);  // q, v, down of three layers, in PEFT's module order
  for (std::size_t i = 0; i < adapter.modules.size(); ++i) {
    const LoraTensors& module = adapter.modules[i];
    EXPECT_EQ(module.rank, slots[static_cast<std::size_t>(module.slot_idx)].kind == "v_proj" ? 1 : 3);
    EXPECT_EQ(module.scale, 6.0 / static_cast<double>(module.rank));
    for (std::size_t j = 0; j < module.a.size(); ++j)
      EXPECT_EQ(module.a[j], static_cast<float>(i) + static_cast<float>(j) / 1024);
    for (std::size_t j = 0; j < module.b.size(); ++j)
      EXPECT_EQ(module.b[j], -static_cast<float>(i) - static_cast<float>(j) / 1024);
  }
  EXPECT_EQ(adapter.config.base_model_name_or_path, "tiny-llama");
}

TEST(LoraAdapterFolder, ComesBackAsItWasWritten) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("expert"));
  or_throw(write_lora_adapter(*env, "expert", sample_adapter(), kSlots));
  const LoraAdapter read = or_throw(read_lora_adapter(*env, "expert", kSlots));
  expect_same(read, sample_adapter());
  EXPECT_EQ(read.config.target_modules, (std::vector<std::string>{"q_proj", "v_proj"}));
}

TEST(LoraAdapterFolder, SpellsOutModulesThatItsConfigDoesNotDescribe) {
  LoraAdapter adapter = sample_adapter();
  adapter.modules.erase(adapter.modules.begin() + 2);
  LoraTensors& odd = adapter.modules[1];
  odd.rank = 3;
  odd.scale = 0.1;
  odd.a = counted(3 * kSlots[2].d_in, 1);
  odd.b = counted(3 * kSlots[2].d_out, 2);
  const auto env = make_memory_env();
  or_throw(env->make_folders("expert"));
  or_throw(write_lora_adapter(*env, "expert", adapter, kSlots));
  const LoraAdapter read = or_throw(read_lora_adapter(*env, "expert", kSlots));
  EXPECT_NEAR(read.modules[1].scale, 0.1, 1e-16);
  odd.scale = read.modules[1].scale;
  expect_same(read, adapter);
}

TEST(LoraAdapterFolder, ReadsKeysWithTheAdaptersName) {
  const auto adapter = with_tensors([](auto& tensors) {
    for (NamedTensor& t : tensors) t.name.insert(t.name.size() - std::string_view(".weight").size(), ".default");
  });
  ASSERT_TRUE(adapter.ok()) << adapter.error().message;
  expect_same(*adapter, sample_adapter());
}

TEST(LoraAdapterFolder, NamesAMissingHalf) {
  expect_error(with_tensors([](auto& tensors) { tensors.erase(tensors.begin() + 3); }),
               "missing model.layers.0.self_attn.v_proj.lora_B");
}

TEST(LoraAdapterFolder, NamesAMissingModule) {
  expect_error(with_tensors([](auto& tensors) { tensors.resize(6); }),
               "model.layers.1.self_attn.v_proj.lora_A, model.layers.1.self_attn.v_proj.lora_B");
}

TEST(LoraAdapterFolder, ListsModulesTheBaseDoesNotHave) {
  expect_error(with_tensors([](auto& tensors) {
                 tensors[4].name = "base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight";
               }),
               "model.layers.7.self_attn.q_proj");
}

TEST(LoraAdapterFolder, ListsModulesOutsideItsTargets) {
  expect_error(with_config([](Json& json) { json["target_modules"] = {"q_proj"}; }), "outside target_modules");
}

TEST(LoraAdapterFolder, NamesOtherRanksAndWidths) {
  expect_error(with_config([](Json& json) { json["r"] = 4; }), "(2, 12) instead of (4, 12)");
  const std::vector<float> narrow(2 * 8);
  expect_error(with_tensors([&](auto& tensors) {
                 tensors[0].tensor = {DType::kF32, {2, 8}, std::as_bytes(std::span(narrow))};
               }),
               "(2, 8) instead of (2, 12); an adapter of another base");
}

TEST(LoraAdapterFolder, NamesTensorsThatAreNoNumbers) {
  const std::vector<std::int64_t> integers(2 * 12);
  expect_error(with_tensors([&](auto& tensors) {
                 tensors[0].tensor = {DType::kI64, {2, 12}, std::as_bytes(std::span(integers))};
               }),
               "of type I64");
}

TEST(LoraAdapterFolder, RefusesNanAndInfinity) {
  for (const float bad : {std::nanf(""), INFINITY}) {
    std::vector<float> values = counted(24, 0);
    values[17] = bad;
    expect_error(with_tensors([&](auto& tensors) { tensors[2].tensor.bytes = std::as_bytes(std::span(values)); }),
                 "model.layers.0.self_attn.v_proj.lora_A.weight; the training diverged");
  }
}

TEST(LoraAdapterFolder, RefusesTensorsOfOtherMethods) {
  const std::vector<float> magnitude(16);
  expect_error(with_tensors([&](auto& tensors) {
                 tensors.push_back({"base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
                                    {DType::kF32, {16}, std::as_bytes(std::span(magnitude))}});
               }),
               "lora_magnitude_vector");
}

TEST(LoraAdapterFolder, RefusesTwoCopiesOfOneMatrix) {
  expect_error(with_tensors([](auto& tensors) {
                 tensors.push_back(tensors[0]);
                 tensors.back().name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight";
               }),
               "second copy");
}

TEST(LoraAdapterFolder, RefusesAPickleWithTheWayOut) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("expert"));
  put_file(*env, "expert/adapter_config.json", adapter_config_to_json(sample_adapter().config).dump());
  expect_error(read_lora_adapter(*env, "expert", kSlots), "no adapter_model.safetensors");
  put_file(*env, "expert/adapter_model.bin", "PK");
  expect_error(read_lora_adapter(*env, "expert", kSlots), "safe_serialization=True");
}

TEST(LoraAdapterFolder, SaysWhatAFolderIsNot) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("model"));
  put_file(*env, "model/config.json", "{}");
  expect_error(read_lora_adapter(*env, "model", kSlots), "this is a model");
  expect_error(with_config([](Json& json) { json["peft_type"] = "IA3"; }), "IA3");
}

GateFile sample_gate() {
  GateFile gate{"phatgoose", 100, "abc", {}};
  for (const int slot_idx : {0, 6}) {
    const std::int64_t d_in = kSlots[static_cast<std::size_t>(slot_idx)].d_in;
    gate.modules.push_back({slot_idx, 1, counted(d_in, static_cast<float>(slot_idx))});
  }
  gate.modules.push_back({9, 3, counted(3 * 12, 5)});
  return gate;
}

TEST(GateFolder, ComesBackAsItWasWritten) {
  const auto env = make_memory_env();
  or_throw(write_gate(*env, "expert", sample_gate(), kSlots));
  EXPECT_EQ(gate_kinds(*env, "expert"), std::vector<std::string>{"phatgoose"});
  EXPECT_TRUE(gate_kinds(*env, "elsewhere").empty());
  const GateFile gate = or_throw(read_gate(*env, "expert", "phatgoose", kSlots));
  EXPECT_EQ(gate.steps, 100);
  EXPECT_EQ(gate.base_fingerprint, "abc");
  ASSERT_EQ(gate.modules.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(gate.modules[i].slot_idx, sample_gate().modules[i].slot_idx);
    EXPECT_EQ(gate.modules[i].num_directions, sample_gate().modules[i].num_directions);
    EXPECT_EQ(gate.modules[i].directions, sample_gate().modules[i].directions);
  }
}

TEST(GateFolder, RefusesGatesThatDoNotFit) {
  const auto env = make_memory_env();
  expect_error(read_gate(*env, "expert", "phatgoose", kSlots), "skein train gate");
  expect_error(read_gate(*env, "expert", "../secret", kSlots), "no name of a file");
  const auto written = [&](const std::string& name, Shape shape, float value, const std::string& steps,
                           const std::string& kind) {
    const std::vector<float> values(static_cast<std::size_t>(*checked_numel(shape)), value);
    or_throw(env->make_folders("expert/gates"));
    or_throw(write_safetensors(*env, "expert/gates/arrow.safetensors",
                               {{name, {DType::kF32, shape, std::as_bytes(std::span(values))}}},
                               {{"kind", kind}, {"steps", steps}}));
    return read_gate(*env, "expert", "arrow", kSlots);
  };
  const std::string gate = "model.layers.0.self_attn.q_proj.gate";
  EXPECT_TRUE(written(gate, {12}, 1, "0", "arrow").ok());
  expect_error(written(gate, {13}, 1, "0", "arrow"), "(13); expected numbers of shape (12)");
  expect_error(written(gate, {12, 2}, 1, "0", "arrow"), "(12, 2)");
  expect_error(written(gate, {12}, std::nanf(""), "0", "arrow"), "NaN");
  expect_error(written("model.layers.9.self_attn.q_proj.gate", {12}, 1, "0", "arrow"), "layers.9");
  expect_error(written(gate, {12}, 1, "many", "arrow"), "many");
  expect_error(written(gate, {12}, 1, "0", "phatgoose"), "renamed");
}

TEST(ExpertCard, IsEmptyWhereThereIsNoneAndComesBackAsWritten) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("expert"));
  EXPECT_EQ(or_throw(read_card(*env, "expert")), Json::object());
  const Json card = {{"task", "agnews"}, {"base_fingerprint", "abc"}};
  or_throw(write_card(*env, "expert", card));
  EXPECT_EQ(or_throw(read_card(*env, "expert")), card);
  put_file(*env, "expert/card.json", "[]");
  expect_error(read_card(*env, "expert"), "not a JSON object");
}

}  // namespace
}  // namespace skein
