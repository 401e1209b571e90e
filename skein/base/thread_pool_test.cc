#include "skein/base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <vector>

namespace skein {
namespace {

TEST(ParallelFor, VisitsEveryIndexOnce) {
  std::vector<std::atomic<int>> visits(1003);
  parallel_for(1003, 7, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) visits[i].fetch_add(1);
  });
  for (const auto& count : visits) ASSERT_EQ(count.load(), 1);
}

TEST(ParallelFor, CutsAtBordersThatDependOnTheGrainOnly) {
  std::mutex mutex;
  std::set<std::pair<std::int64_t, std::int64_t>> chunks;
  parallel_for(10, 4, [&](std::int64_t begin, std::int64_t end) {
    const std::lock_guard lock(mutex);
    chunks.emplace(begin, end);
  });
  EXPECT_EQ(chunks, (std::set<std::pair<std::int64_t, std::int64_t>>{{0, 4}, {4, 8}, {8, 10}}));
}

TEST(ParallelFor, DoesNothingForAnEmptyRange) {
  parallel_for(0, 4, [](std::int64_t, std::int64_t) { FAIL(); });
}

TEST(ParallelFor, RethrowsAnExceptionAndStaysUsable) {
  EXPECT_THROW(parallel_for(100, 1,
                            [](std::int64_t begin, std::int64_t) {
                              if (begin == 40) throw std::runtime_error("forty");
                            }),
               std::runtime_error);
  std::atomic<int> sum{0};
  parallel_for(100, 1, [&](std::int64_t begin, std::int64_t) { sum.fetch_add(static_cast<int>(begin)); });
  EXPECT_EQ(sum.load(), 4950);
}

TEST(ParallelFor, RunsNestedLoopsSerially) {
  std::atomic<int> sum{0};
  parallel_for(8, 1, [&](std::int64_t, std::int64_t) {
    parallel_for(8, 1, [&](std::int64_t, std::int64_t) { sum.fetch_add(1); });
  });
  EXPECT_EQ(sum.load(), 64);
}

TEST(ParallelFor, SurvivesManyShortLoops) {
  std::atomic<std::int64_t> sum{0};
  for (int round = 0; round < 20000; ++round) {
    parallel_for(4, 1, [&](std::int64_t begin, std::int64_t) { sum.fetch_add(begin); });
  }
  EXPECT_EQ(sum.load(), 20000 * 6);
}

}  // namespace
}  // namespace skein
