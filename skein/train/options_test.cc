#include "skein/train/options.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace skein {
namespace {

TEST(TrainOptions, ThePapersPresetsHoldTheReleasedCodesValues) {
  const TrainOptions expert = phatgoose_expert_options(), gate = phatgoose_gate_options();
  EXPECT_EQ(expert.steps, 1000);
  EXPECT_EQ(gate.steps, 100);
  for (const TrainOptions& options : {expert, gate}) {
    EXPECT_EQ(options.batch, 1024);
    EXPECT_EQ(options.loss_mean, LossMean::kMicrobatch);
    EXPECT_EQ(options.schedule, Schedule::kConstant);
    EXPECT_EQ(options.learning_rate, 5e-3);
    EXPECT_EQ(options.weight_decay, 0);
    EXPECT_EQ(options.adam_eps, 1e-8);
    EXPECT_EQ(options.clip_norm, 1.0);
    EXPECT_EQ(options.warmup_ratio, 0.06);
    EXPECT_EQ(options.prompt.max_input, 512);
    EXPECT_EQ(options.valid_every, 100);
  }
  EXPECT_EQ(expert.lora.rank, 16);
  EXPECT_EQ(expert.lora.alpha, 1);
  EXPECT_EQ(expert.lora.a_std, 0.01);
  EXPECT_TRUE(expert.lora.target_kinds.empty());
}

TEST(TrainOptions, NamesParseBackAndUnknownOnesListTheKnown) {
  for (const LossMean mean : {LossMean::kToken, LossMean::kMicrobatch, LossMean::kSequence}) {
    EXPECT_EQ(parse_loss_mean(loss_mean_name(mean)).value(), mean);
  }
  for (const Schedule schedule : {Schedule::kConstant, Schedule::kLinear, Schedule::kCosine}) {
    EXPECT_EQ(parse_schedule(schedule_name(schedule)).value(), schedule);
  }
  const auto unknown = parse_loss_mean("tokens");
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().kind, ErrorKind::kUsage);
  EXPECT_THAT(unknown.error().message, testing::HasSubstr("token, microbatch, sequence"));
}

TEST(TrainOptions, RefusesValuesOutOfRange) {
  EXPECT_TRUE(check_train_options(TrainOptions{}).ok());
  const auto refused = [](auto change) {
    TrainOptions options;
    change(options);
    return !check_train_options(options).ok();
  };
  EXPECT_TRUE(refused([](TrainOptions& options) { options.steps = 0; }));
  EXPECT_TRUE(refused([](TrainOptions& options) { options.batch = 0; }));
  EXPECT_TRUE(refused([](TrainOptions& options) { options.micro_batch = -1; }));
  EXPECT_TRUE(refused([](TrainOptions& options) { options.learning_rate = std::numeric_limits<double>::quiet_NaN(); }));
  EXPECT_TRUE(refused([](TrainOptions& options) { options.learning_rate = -1e-3; }));
  EXPECT_TRUE(refused([](TrainOptions& options) { options.beta2 = 1; }));
  EXPECT_TRUE(refused([](TrainOptions& options) { options.warmup_ratio = 1.5; }));
  EXPECT_TRUE(refused([](TrainOptions& options) { options.clip_norm = -1; }));
  EXPECT_TRUE(refused([](TrainOptions& options) { options.valid_every = 0; }));
}

}  // namespace
}  // namespace skein
