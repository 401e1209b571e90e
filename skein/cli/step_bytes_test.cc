#include "skein/cli/step_bytes.h"

#include <gtest/gtest.h>

#include "skein/serve/tiny_engine.h"

namespace skein {
namespace {

// Two answers of two tokens; numbers worked out by hand.
TEST(StepBytes, CountsDistinctExpertsModuleByModuleStepByStep) {
  testing::TinyEngine tiny(Family::kLlama);
  const BaseModel base = or_throw(open_base_model(*tiny.env, "base"));
  const std::vector<SlotName> slots = slot_names(base.config);
  const auto slot_of = [&](const std::string& module) {
    for (const SlotName& slot : slots) {
      if (slot.module == module) return slot;
    }
    throw Failure({module});
  };
  const std::string q = "model.layers.0.self_attn.q_proj", k = "model.layers.0.self_attn.k_proj";
  const Json first = {
      {"experts", {"one", "two", "three"}},
      {"slot_sets", Json::array({Json::array({{{"module", q}}, {{"module", k}}})})},
      {"tokens", Json::array({{{"part", "prompt"}, {"slot_set", 0}, {"k", 2}, {"experts", {0, 1, 2, 0}}}})}};
  const auto token = [](const std::vector<int>& experts) {
    return Json{{"part", "answer"}, {"slot_set", 0}, {"k", 2}, {"experts", experts}};
  };
  // Step 1: q of one, two and three; k of one (which no expert adapts). Step 2: q of two alone.
  const std::vector<std::vector<Json>> traces = {
      {first, {{"tokens", Json::array({token({0, 1, 0, -1})})}}, {{"tokens", Json::array({token({1, -1, -1, -1})})}}},
      {first, {{"tokens", Json::array({token({1, 2, -1, -1}), token({1, -1, -1, -1})})}}}};
  const StepBytes bytes = step_bytes(*tiny.env, base, "pool", traces, 2);
  const auto lora = static_cast<double>(2 * (slot_of(q).d_in + slot_of(q).d_out));  // of rank 2
  EXPECT_DOUBLE_EQ(bytes.experts, 2 * (3 * lora + lora) / 2);
  double weights = static_cast<double>(base.config.vocabulary_size * base.config.d_model), inputs = 0;
  for (const SlotName& slot : slots) {
    weights += static_cast<double>(slot.d_in * slot.d_out);
    inputs += static_cast<double>(slot.d_in);
  }
  EXPECT_DOUBLE_EQ(bytes.base, 2 * weights);
  EXPECT_DOUBLE_EQ(bytes.gates, 2 * 3 * inputs);
  EXPECT_DOUBLE_EQ(bytes.bound(), bytes.base / (bytes.base + bytes.gates + bytes.experts));
}

}  // namespace
}  // namespace skein
