#include "skein/infer/cma_es.h"

#include <cmath>

#include <gtest/gtest.h>

namespace skein {
namespace {

TEST(CmaEs, FindsTheMinimumOfAStretchedBowl) {
  const std::vector<double> at = {0.5, -1, 0.25, 1.2, -0.3};
  const auto bowl = [&](const std::vector<double>& x) {
    double sum = 0;
    for (std::size_t i = 0; i < at.size(); ++i)
      sum += std::pow(10.0, static_cast<double>(i)) * std::pow(x[i] - at[i], 2);
    return sum;
  };
  const CmaEsResult result = minimise(bowl, std::vector<double>(5, 0.0), {.generations = 250, .seed = 1});
  for (std::size_t i = 0; i < at.size(); ++i) EXPECT_NEAR(result.best[i], at[i], 1e-4) << i;
  EXPECT_EQ(result.evaluations, 1 + 250 * 8);
  EXPECT_EQ(result.first_value, bowl(std::vector<double>(5, 0.0)));
}

TEST(CmaEs, TurnsWithTheValley) {
  const auto rosenbrock = [](const std::vector<double>& x) {
    return 100 * std::pow(x[1] - x[0] * x[0], 2) + std::pow(1 - x[0], 2);
  };
  EXPECT_LT(minimise(rosenbrock, {-1, 1}, {.generations = 200, .seed = 2}).value, 1e-6);
}

TEST(CmaEs, StaysWithinItsBoundAndIsTheSameForASeed) {
  const auto slope = [](const std::vector<double>& x) {
    for (const double value : x) EXPECT_LE(std::fabs(value), 1.5);
    return -x[0] - x[1];
  };
  const CmaEsResult first = minimise(slope, {0, 0}, {.seed = 3}), second = minimise(slope, {0, 0}, {.seed = 3});
  EXPECT_EQ(first.best, second.best);
  EXPECT_NEAR(first.value, -3, 0.01);
  EXPECT_NE(minimise(slope, {0, 0}, {.generations = 2, .seed = 4}).best,
            minimise(slope, {0, 0}, {.generations = 2, .seed = 3}).best);
}

}  // namespace
}  // namespace skein
