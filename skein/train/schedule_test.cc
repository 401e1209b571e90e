#include "skein/train/schedule.h"

#include <gtest/gtest.h>

namespace skein {
namespace {

TEST(Schedule, WarmsUpFromZeroAsThePaperDoes) {
  const TrainOptions options = phatgoose_gate_options();  // 100 steps, 6 % warm-up
  ASSERT_EQ(warmup_steps(options), 6);
  for (int step = 0; step <= 6; ++step) EXPECT_DOUBLE_EQ(learning_rate_at(options, step), 5e-3 * step / 6.0);
  EXPECT_DOUBLE_EQ(learning_rate_at(options, 99), 5e-3);
  EXPECT_EQ(warmup_steps(phatgoose_expert_options()), 60);
}

TEST(Schedule, WarmUpIsRoundedUpButNotByBinaryFractions) {
  TrainOptions options;
  options.steps = 100;
  options.warmup_ratio = 0.07;  // 0.07 * 100 > 7 in binary
  EXPECT_EQ(warmup_steps(options), 7);
  options.steps = 10;
  EXPECT_EQ(warmup_steps(options), 1);
  options.warmup_ratio = 0;
  EXPECT_EQ(warmup_steps(options), 0);
  EXPECT_DOUBLE_EQ(learning_rate_at(options, 0), options.learning_rate);
}

TEST(Schedule, LinearAndCosineFallToZeroAtTheEnd) {
  TrainOptions options;
  options.steps = 12;
  options.warmup_ratio = 2.0 / 12;
  options.learning_rate = 1;
  options.schedule = Schedule::kLinear;
  EXPECT_DOUBLE_EQ(learning_rate_at(options, 2), 1);
  EXPECT_DOUBLE_EQ(learning_rate_at(options, 7), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate_at(options, 11), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate_at(options, 12), 0);
  options.schedule = Schedule::kCosine;
  EXPECT_DOUBLE_EQ(learning_rate_at(options, 2), 1);
  EXPECT_DOUBLE_EQ(learning_rate_at(options, 7), 0.5);
  EXPECT_NEAR(learning_rate_at(options, 12), 0, 1e-15);
}

}  // namespace
}  // namespace skein
