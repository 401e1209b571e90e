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

}  // namespace
}  // namespace skein
