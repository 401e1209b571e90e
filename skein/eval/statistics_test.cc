#include "skein/eval/statistics.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "skein/base/concat.h"
#include "skein/base/median.h"
#include "skein/io/json.h"

namespace skein {
namespace {

Json golden() {
  return or_throw(read_json_file(real_env(), concat(SKEIN_SOURCE_DIR, "/tests/golden/metrics/tests.json")));
}

TEST(McNemar, IsTheExactBinomialTest) {
  const Json tests = golden();
  for (const Json& line : tests["mcnemar"]) {
    const double wanted = line[2];
    EXPECT_NEAR(mcnemar_p_value(line[0], line[1]), wanted, 1e-10 * wanted) << line;
  }
}

TEST(Holm, IsThatOfStatsmodelsAndSkipsWhatWasNotTested) {
  const Json tests = golden();
  auto p = tests["p"].get<std::vector<double>>();
  const auto wanted = tests["holm"].get<std::vector<double>>();
  p.insert(p.begin() + 2, std::numeric_limits<double>::quiet_NaN());
  std::vector<double> corrected = holm_corrected(p);
  EXPECT_TRUE(std::isnan(corrected[2]));
  corrected.erase(corrected.begin() + 2);
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(corrected[i], wanted[i], 1e-15);
}

TEST(WilsonInterval, IsThatOfTheTables) {
  // 8 of 10 at 95 %: 0.4902 to 0.9433 (R: prop.test(8, 10, correct = FALSE)).
  EXPECT_NEAR(wilson_interval(8, 10).first, 0.49016, 1e-5);
  EXPECT_NEAR(wilson_interval(8, 10).second, 0.94331, 1e-5);
  EXPECT_EQ(wilson_interval(0, 10).first, 0);
  EXPECT_NEAR(wilson_interval(0, 10).second, 0.27753, 1e-5);
  EXPECT_EQ(wilson_interval(10, 10).second, 1);
  EXPECT_EQ(wilson_interval(0, 0), std::make_pair(0.0, 1.0));
}

TEST(Median, IsTheMiddleOrTheMeanOfTheTwo) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
  EXPECT_TRUE(std::isnan(median({})));
}

TEST(PercentileInterval, InterpolatesBetweenReplicates) {
  std::vector<double> replicates;
  for (int i = 0; i <= 100; ++i) replicates.push_back(100 - i);
  const auto [low, high] = percentile_interval(replicates, 0.9);
  EXPECT_DOUBLE_EQ(low, 5);
  EXPECT_DOUBLE_EQ(high, 95);
  EXPECT_DOUBLE_EQ(percentile_interval({0, 1}, 0.5).first, 0.25);
}

TEST(BootstrapPValue, CountsBothSidesAndIsNeverZero) {
  EXPECT_DOUBLE_EQ(bootstrap_p_value(std::vector<double>(99, 1.0)), 0.02);
  EXPECT_EQ(bootstrap_p_value({-1, 1, -1, 1}), 1);
  EXPECT_EQ(bootstrap_p_value({0, 0, 0}), 1);
}

TEST(Resampler, DrawsEveryIdAsOftenAsAnyOther) {
  Resampler resampler(3, "rte", 10);
  std::vector<double> times(10, 0);
  for (int b = 0; b < 2000; ++b) {
    const std::vector<int> draw = resampler.draw();
    int sum = 0;
    for (std::size_t i = 0; i < draw.size(); ++i) {
      times[i] += draw[i];
      sum += draw[i];
    }
    ASSERT_EQ(sum, 10);
  }
  // 20,000 draws over ten: 2,000 each with a standard deviation of 42; five of them.
  for (const double count : times) EXPECT_NEAR(count, 2000, 210);
}

TEST(Resampler, RepeatsItselfAndDiffersBetweenTasksAndSeeds) {
  EXPECT_EQ(Resampler(3, "rte", 50).draw(), Resampler(3, "rte", 50).draw());
  EXPECT_NE(Resampler(3, "rte", 50).draw(), Resampler(4, "rte", 50).draw());
  EXPECT_NE(Resampler(3, "rte", 50).draw(), Resampler(3, "copa", 50).draw());
}

}  // namespace
}  // namespace skein
