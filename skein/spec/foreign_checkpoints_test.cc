#include "skein/spec/foreign_checkpoints.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/base/concat.h"

namespace skein {
namespace {

using ::testing::HasSubstr;

// The two modules that tools/goldens/make_foreign_checkpoints.py writes.
const std::vector<SlotName> kSlots{{"encoder.block.0.layer.0.SelfAttention.q", 4, 6, 0, "q", true},
                                   {"decoder.block.0.layer.2.DenseReluDense.wo", 8, 5, 0, "wo", false}};

std::string golden(const std::string& name) { return std::string(SKEIN_SOURCE_DIR) + "/tests/golden/foreign/" + name; }

Result<std::vector<ForeignExpert>> convert(const std::string& name, const ForeignOptions& options = {},
                                           const std::vector<SlotName>& slots = kSlots) {
  SKEIN_ASSIGN(const auto archive, TorchArchive::open(real_env(), golden(name)));
  return experts_of_archive(*archive, slots, options);
}

std::vector<float> counted(std::size_t count, float start) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = start + static_cast<float>(i);
  return values;
}

void expect_factors(const ForeignExpert& expert, float start) {
  ASSERT_EQ(expert.adapter.modules.size(), 2U);
  for (const LoraTensors& module : expert.adapter.modules) {
    EXPECT_EQ(module.rank, 2);
    EXPECT_EQ(module.a, counted(static_cast<std::size_t>(2 * kSlots[module.slot_idx].d_in), start));
    EXPECT_EQ(module.b, counted(static_cast<std::size_t>(2 * kSlots[module.slot_idx].d_out), start + 100));
  }
}

TEST(ForeignCheckpoints, ReadsASingleLoraOfPhatgooseWithScaleOneOverR) {
  const auto experts = convert("phatgoose_lora.pt");
  ASSERT_TRUE(experts.ok()) << experts.error().message;
  ASSERT_EQ(experts->size(), 1U);
  expect_factors(experts->front(), 0);
  EXPECT_EQ(experts->front().adapter.modules[0].scale, 0.5);
  EXPECT_EQ(experts->front().adapter.config.alpha, 1);
  EXPECT_EQ(experts->front().adapter.config.task_type, "SEQ_2_SEQ_LM");
  EXPECT_FALSE(experts->front().gate.has_value());
}

TEST(ForeignCheckpoints, ReadsANumberedMixtureWithItsGatesAndStrides) {
  ForeignOptions options;
  options.names = {"nli", "qa", "summary"};
  const auto experts = convert("phatgoose_mixture.pt", options);
  ASSERT_TRUE(experts.ok()) << experts.error().message;
  ASSERT_EQ(experts->size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    const ForeignExpert& expert = (*experts)[i];
    EXPECT_EQ(expert.name, options.names[i]);
    expect_factors(expert, 1000 * static_cast<float>(i));
    ASSERT_TRUE(expert.gate.has_value());
    ASSERT_EQ(expert.gate->modules.size(), 2U);
    EXPECT_EQ(expert.gate->modules[0].directions, counted(4, 1000 * static_cast<float>(i) + 500));
  }
}

TEST(ForeignCheckpoints, ReadsAGateThatIsStillBeingTrained) {
  const auto experts = convert("phatgoose_gate.pt");
  ASSERT_TRUE(experts.ok()) << experts.error().message;
  expect_factors(experts->front(), 0);
  ASSERT_TRUE(experts->front().gate.has_value());
  EXPECT_EQ(experts->front().gate->modules[1].directions, counted(8, 500));
}

TEST(ForeignCheckpoints, ReadsMttlTransposedWithAlphaSixteen) {
  const auto experts = convert("mttl.ckpt");
  ASSERT_TRUE(experts.ok()) << experts.error().message;
  expect_factors(experts->front(), 0);  // integers below 256 are exact in bf16
  EXPECT_EQ(experts->front().adapter.modules[0].scale, 8);
}

TEST(ForeignCheckpoints, TakesAnotherAlphaWhenTold) {
  ForeignOptions options;
  options.alpha = 4;
  EXPECT_EQ(convert("mttl.ckpt", options)->front().adapter.modules[0].scale, 2);
}

TEST(ForeignCheckpoints, NumbersExpertsThatWereNotNamed) {
  EXPECT_EQ((*convert("phatgoose_mixture.pt"))[2].name, "expert_2");
}

TEST(ForeignCheckpoints, RefusesAnotherNumberOfNames) {
  ForeignOptions options;
  options.names = {"one"};
  const auto experts = convert("phatgoose_mixture.pt", options);
  ASSERT_FALSE(experts.ok());
  EXPECT_EQ(experts.error().kind, ErrorKind::kUsage);
  EXPECT_THAT(experts.error().message, HasSubstr("3 expert(s), and 1 name(s)"));
}

TEST(ForeignCheckpoints, RefusesModulesOfAnotherBase) {
  const auto experts = convert("phatgoose_lora.pt", {}, {kSlots[0]});
  ASSERT_FALSE(experts.ok());
  EXPECT_THAT(experts.error().message, HasSubstr("DenseReluDense.wo"));
  EXPECT_THAT(experts.error().message, HasSubstr("no linear of this base"));
}

TEST(ForeignCheckpoints, RefusesOtherWidths) {
  auto slots = kSlots;
  slots[0].d_in = 5;
  const auto experts = convert("phatgoose_lora.pt", {}, slots);
  ASSERT_FALSE(experts.ok());
  EXPECT_THAT(experts.error().message, HasSubstr("expects (R, 5)"));
}

TEST(ForeignCheckpoints, RunsNothingThatAPickleAsksFor) {
  const auto archive = TorchArchive::open(real_env(), golden("hostile.pt"));
  ASSERT_FALSE(archive.ok());
  EXPECT_THAT(archive.error().message, HasSubstr("system"));
  EXPECT_FALSE(real_env().exists("/tmp/a-pickle-ran"));
}

}  // namespace
}  // namespace skein
