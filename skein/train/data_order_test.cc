#include "skein/train/data_order.h"

#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

namespace skein {
namespace {

std::vector<std::int64_t> epoch(DataOrder& order, std::int64_t count, std::int64_t epoch_idx) {
  std::vector<std::int64_t> read;
  for (std::int64_t i = 0; i < count; ++i) read.push_back(order.at(epoch_idx * count + i));
  return read;
}

TEST(DataOrder, EveryEpochReadsEveryExampleOnceInAnotherOrder) {
  constexpr std::int64_t kCount = 101;
  DataOrder order(kCount, 3);
  std::vector<std::int64_t> all(kCount);
  std::iota(all.begin(), all.end(), 0);
  const auto first = epoch(order, kCount, 0), second = epoch(order, kCount, 1);
  EXPECT_TRUE(std::is_permutation(all.begin(), all.end(), first.begin()));
  EXPECT_TRUE(std::is_permutation(all.begin(), all.end(), second.begin()));
  EXPECT_NE(first, all);
  EXPECT_NE(first, second);
}

TEST(DataOrder, DependsOnSeedAndPositionAlone) {
  DataOrder order(50, 3), same(50, 3), other(50, 4);
  const auto later = epoch(order, 50, 7);
  for (std::int64_t i = 49; i >= 0; --i) EXPECT_EQ(same.at(7 * 50 + i), later[static_cast<std::size_t>(i)]);
  EXPECT_NE(epoch(other, 50, 7), later);
}

TEST(DataOrder, PutsEveryExampleEverywhereEquallyOften) {
  // Over 6,000 epochs of 6 examples each cell expects 1,000 with a standard deviation of 29: five of them are 145.
  constexpr int kEpochs = 6000, kCount = 6;
  DataOrder order(kCount, 11);
  int counts[kCount][kCount] = {};
  for (int i = 0; i < kEpochs * kCount; ++i) ++counts[i % kCount][order.at(i)];
  for (const auto& row : counts) {
    for (const int count : row) EXPECT_NEAR(count, kEpochs / kCount, 145);
  }
}

TEST(DataOrder, ASingleExampleIsReadAgainAndAgain) {
  DataOrder order(1, 0);
  EXPECT_EQ(order.at(0), 0);
  EXPECT_EQ(order.at(12345), 0);
}

TEST(TaskRates, AreSizesCappedAndFlattened) {
  const auto near = [](const std::vector<double>& got, const std::vector<double>& want) {
    for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-12) << i;
  };
  near(task_rates({100, 300}, {}), {0.25, 0.75});
  near(task_rates({100, 300}, {.cap = 100}), {0.5, 0.5});
  near(task_rates({100, 400}, {.temperature = 2}), {1.0 / 3, 2.0 / 3});  // square roots
}

TEST(TaskOrder, DrawsTasksAtTheirRatesAndEachExampleOncePerEpoch) {
  std::vector<int> task_of(400, 1);
  std::fill_n(task_of.begin(), 100, 0);
  TaskOrder order(task_of, {.cap = 100}, 3);
  std::vector<int> seen(task_of.size(), 0);
  int of_small = 0;
  constexpr int kDraws = 4000;
  for (int position = 0; position < kDraws; ++position) {
    const std::int64_t example = order.at(position);
    ++seen[example];
    of_small += task_of[example] == 0;
  }
  // Binomial, p = 1/2: a deviation of 5 standard errors (5 * sqrt(4000) / 2 = 158) happens once in 10^6 seeds.
  EXPECT_NEAR(of_small, kDraws / 2, 158);
  for (std::size_t i = 0; i < task_of.size(); ++i) {
    const int draws = task_of[i] == 0 ? of_small : kDraws - of_small, size = task_of[i] == 0 ? 100 : 300;
    EXPECT_TRUE(seen[i] == draws / size || seen[i] == draws / size + 1) << i << " seen " << seen[i] << " times";
  }
}

TEST(TaskOrder, IsAFunctionOfSeedAndPosition) {
  const std::vector<int> task_of = {0, 0, 1, 1, 1, 2};
  TaskOrder order(task_of, {.temperature = 3}, 5), other(task_of, {.temperature = 3}, 5);
  std::vector<std::int64_t> straight;
  for (int position = 0; position < 50; ++position) straight.push_back(order.at(position));
  for (const int position : {49, 0, 17, 18, 3}) EXPECT_EQ(other.at(position), straight[position]) << position;
}

}  // namespace
}  // namespace skein
