// Which modules a configuration means, against PEFT's own answers (tools/goldens/make_peft_golden.py).
#include <chrono>

#include "skein/io/json.h"
#include "skein/spec/lora_config.h"
#include "skein/spec/module_pattern.h"
#include "skein/spec/tiny_base.h"

namespace skein {
namespace {

using testing::expect_error;
using testing::golden_path;

std::vector<SlotName> golden_slots(const std::string& base) {
  const std::string path = golden_path(concat("models/", base, "/config.json"));
  return slot_names(or_throw(config_from_json(or_throw(read_json_file(real_env(), path)), path)));
}

Result<AdapterConfig> parsed(const char* text) {
  return adapter_config_from_json(or_throw(parse_json(text, "adapter_config.json")), "adapter_config.json");
}

Result<std::vector<AdaptedSlot>> matched(const char* text) {
  SKEIN_ASSIGN(const AdapterConfig config, parsed(text));
  return match_slots(config, slot_names(testing::tiny_config()));
}

TEST(MatchSlots, AdaptsTheModulesPeftAdaptsWithItsRanksAndScales) {
  const Json golden = or_throw(read_json_file(real_env(), golden_path("peft/match_slots.json")));
  ASSERT_GE(golden["cases"].size(), 15u);
  for (const Json& one : golden["cases"]) {
    const std::string base = one["base"];
    SCOPED_TRACE(concat(base, " ", one["config"].dump()));
    const std::vector<SlotName> slots = golden_slots(base);
    const auto found = match_slots(or_throw(adapter_config_from_json(one["config"], "case")), slots);
    ASSERT_TRUE(found.ok()) << found.error().message;
    ASSERT_EQ(found->size(), one["adapted"].size());
    for (std::size_t i = 0; i < found->size(); ++i) {
      const Json& expected = one["adapted"][i];
      EXPECT_EQ(slots[static_cast<std::size_t>((*found)[i].slot_idx)].module, expected["module"].get<std::string>());
      EXPECT_EQ((*found)[i].rank, expected["rank"].get<std::int64_t>());
      EXPECT_EQ((*found)[i].scale, expected["scale"].get<double>());
    }
  }
}

TEST(MatchSlots, FindTheSameAgainFromTheJsonTheyAreWrittenAs) {
  const Json golden = or_throw(read_json_file(real_env(), golden_path("peft/match_slots.json")));
  for (const Json& one : golden["cases"]) {
    const AdapterConfig config = or_throw(adapter_config_from_json(one["config"], "case"));
    const AdapterConfig again = or_throw(adapter_config_from_json(adapter_config_to_json(config), "again"));
    const auto slots = golden_slots(one["base"]);
    const auto before = or_throw(match_slots(config, slots)), after = or_throw(match_slots(again, slots));
    ASSERT_EQ(before.size(), after.size()) << one["config"].dump();
    for (std::size_t i = 0; i < before.size(); ++i) {
      EXPECT_EQ(before[i].slot_idx, after[i].slot_idx);
      EXPECT_EQ(before[i].rank, after[i].rank);
      EXPECT_EQ(before[i].scale, after[i].scale);
    }
  }
}

TEST(MatchSlots, TakeQAndVWhereNoTargetsAreNamed) {
  EXPECT_EQ(or_throw(matched(R"({"peft_type": "LORA"})")).size(), 4u);
  EXPECT_EQ(or_throw(matched(R"({"peft_type": "LORA"})"))[1].slot_idx, 2);
}

TEST(MatchSlots, SayThatNothingMatched) {
  expect_error(matched(R"({"peft_type": "LORA", "target_modules": ["c_attn", "q"]})"), "c_attn, q name no linear");
  expect_error(matched(R"({"peft_type": "LORA", "target_modules": []})"), "nothing name no linear");
  // A suffix ends at a dot: "proj" is no module.
  expect_error(matched(R"({"peft_type": "LORA", "target_modules": ["proj"]})"), "proj");
}

TEST(MatchSlots, GiveUpOnHostileRegularExpressionsWithinSeconds) {
  const auto started = std::chrono::steady_clock::now();
  expect_error(matched(R"({"peft_type": "LORA", "target_modules": "(.*.*.*.*.*.*)*[XZ]"})"), "gave up");
  expect_error(matched(R"({"peft_type": "LORA", "target_modules": "([a-z_.0-9]+)+$."})"), "gave up");
  expect_error(matched(R"({"peft_type": "LORA", "target_modules": ["q_proj"], "rank_pattern": {"(.+)+(.+)+[XZ]": 3}})"),
               "gave up");
  expect_error(matched(R"({"peft_type": "LORA", "target_modules": "(((a{1000}){1000}){1000}){9}"})"), "wrong at byte");
  expect_error(matched(R"({"peft_type": "LORA", "target_modules": "(q_proj"})"), "wrong at byte 7");
  const std::string nested(5000, '(');
  expect_error(matched(concat(R"({"peft_type": "LORA", "target_modules": ")", nested, "\"}").c_str()), "wrong at byte");
  EXPECT_LT(std::chrono::steady_clock::now() - started, std::chrono::seconds(20));
}

TEST(MatchSlots, BoundTheWorkOfManyHostilePatterns) {
  AdapterConfig config;
  config.target_modules = {"q_proj"};
  for (int i = 0; i < 5000; ++i) config.rank_pattern.emplace_back(concat("(.+)+", i), 2);
  expect_error(match_slots(config, slot_names(testing::tiny_config())), "at most 4096");
}

TEST(ModulePattern, AnchorsAsPythonDoes) {
  const auto matches = [](const char* pattern, ModulePattern::Anchor anchor, const char* text) {
    return or_throw(or_throw(ModulePattern::compile(pattern, anchor, 10000, "test")).matches(text));
  };
  EXPECT_TRUE(matches("b", ModulePattern::Anchor::kStart, "bc"));
  EXPECT_FALSE(matches("c", ModulePattern::Anchor::kStart, "bc"));
  EXPECT_FALSE(matches("b", ModulePattern::Anchor::kBoth, "bc"));
  EXPECT_TRUE(matches("b|bc", ModulePattern::Anchor::kBoth, "bc"));  // fullmatch tries the longer branch too
  EXPECT_FALSE(matches("", ModulePattern::Anchor::kBoth, "bc"));
}

TEST(AdapterConfig, RefusesWhatWouldChangeOutputsByName) {
  for (const char* field :
       {R"("use_dora": true)", R"("alora_invocation_tokens": [1, 2])", R"("layer_replication": [[0, 1], [0, 1]])",
        R"("target_parameters": ["experts.w"])", R"("modules_to_save": ["lm_head"])",
        R"("trainable_token_indices": [3])", R"("bias": "all")", R"("lora_bias": true)", R"("use_qalora": true)",
        R"("use_bdlora": {"a": 1})", R"("use_whatever": true)", R"("velora_config": {"a": 1})",
        R"("kasa_config": {"a": 1})", R"("monteclora_config": {"a": 1})", R"("init_lora_weights": "pissa_niter_16")",
        R"("init_lora_weights": "olora")", R"("init_lora_weights": "corda")", R"("init_lora_weights": "loftq")",
        R"("init_lora_weights": "lora_ga")"}) {
    const std::string name = std::string(field).substr(1, std::string(field).find('"', 1) - 1);
    expect_error(parsed(concat(R"({"peft_type": "LORA", "target_modules": ["q_proj"], )", field, "}").c_str()),
                 concat(": ", name, " is "));
  }
}

TEST(AdapterConfig, IgnoresWhatActsInTrainingOnly) {
  EXPECT_TRUE(
      parsed(R"({"peft_type": "LORA", "lora_dropout": 0.5, "use_dora": false, "modules_to_save": [], "loftq_config": {},
                         "init_lora_weights": "gaussian", "fan_in_fan_out": true, "megatron_core": "m"})")
          .ok());
}

TEST(AdapterConfig, NamesOtherKindsAndWrongFields) {
  expect_error(parsed(R"({"peft_type": "ADALORA"})"), "ADALORA");
  expect_error(parsed(R"({"r": 4})"), "peft_type");
  expect_error(parsed(R"([])"), "not a JSON object");
  expect_error(parsed(R"({"peft_type": "LORA", "r": 0})"), "rank 0");
  expect_error(parsed(R"({"peft_type": "LORA", "r": 1000000})"), "rank 1000000");
  expect_error(parsed(R"({"peft_type": "LORA", "rank_pattern": {"q": 2.5}})"), "rank_pattern");
  expect_error(parsed(R"({"peft_type": "LORA", "rank_pattern": {"q": -1}})"), "rank -1");
  expect_error(parsed(R"({"peft_type": "LORA", "target_modules": [3]})"), "target_modules");
  expect_error(parsed(R"({"peft_type": "LORA", "layers_to_transform": ["a"]})"), "layers_to_transform");
}

TEST(AdapterConfig, ReadsIa3WithItsFeedForwardModules) {
  const AdapterConfig config = or_throw(parsed(
      R"({"peft_type": "IA3", "target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]})"));
  EXPECT_EQ(config.kind, AdapterKind::kIa3);
  EXPECT_EQ(config.feedforward_modules, std::vector<std::string>{"down_proj"});
  EXPECT_EQ(adapter_config_to_json(config)["feedforward_modules"], Json::array({"down_proj"}));
  expect_error(parsed(R"({"peft_type": "IA3", "target_modules": ["k"], "modules_to_save": ["lm_head"]})"),
               "modules_to_save");
}

}  // namespace
}  // namespace skein
