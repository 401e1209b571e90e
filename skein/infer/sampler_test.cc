#include "skein/infer/sampler.h"

#include <cmath>
#include <limits>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "skein/base/result.h"

namespace skein {
namespace {

const std::vector<float> kLogits = {0.5f, 2.0f, -1.0f, 2.0f, 0.0f};

std::map<TokenId, int> counts(double temperature, double top_p, int draws) {
  std::map<TokenId, int> found;
  for (int i = 0; i < draws; ++i)
    ++found[sample_token(kLogits, temperature, top_p, uniform_draw(7, static_cast<std::uint64_t>(i)))];
  return found;
}

TEST(Sampler, DrawsTokensAsOftenAsTheirProbability) {
  constexpr int kDraws = 20000;
  for (const double temperature : {1.0, 0.5, 2.0}) {
    double total = 0;
    for (const float logit : kLogits) total += std::exp(logit / temperature);
    const auto found = counts(temperature, 1, kDraws);
    for (TokenId id = 0; id < 5; ++id) {
      const double p = std::exp(kLogits[static_cast<std::size_t>(id)] / temperature) / total;
      const auto it = found.find(id);
      // Five standard deviations of a binomial.
      EXPECT_NEAR(it == found.end() ? 0 : it->second, kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p)));
    }
  }
}

TEST(Sampler, KeepsTheSmallestSetThatHoldsTopP) {
  const auto support = [](double top_p) {
    std::set<TokenId> ids;
    for (const auto& [id, count] : counts(1, top_p, 2000)) ids.insert(id);
    return ids;
  };
  // Probabilities: 0.092, 0.411, 0.020, 0.411, 0.056 (ties to the lower id).
  EXPECT_EQ(support(0.1), (std::set<TokenId>{1}));
  EXPECT_EQ(support(0.41), (std::set<TokenId>{1}));
  EXPECT_EQ(support(0.5), (std::set<TokenId>{1, 3}));
  EXPECT_EQ(support(0.85), (std::set<TokenId>{0, 1, 3}));
  EXPECT_EQ(support(0.999), (std::set<TokenId>{0, 1, 2, 3, 4}));
}

TEST(Sampler, KeepsTopPAcrossManyUnlikelyTokens) {
  // One token of mass e^10, 100000 of mass 1: those hold 82 % together, each below any quick threshold.
  std::vector<float> logits(100001, 0.0f);
  logits[50000] = 10;
  int others = 0;
  for (int i = 0; i < 100; ++i)
    others += sample_token(logits, 1, 0.9, uniform_draw(1, static_cast<std::uint64_t>(i))) != 50000;
  EXPECT_GT(others, 50);
  EXPECT_LT(others, 100);
}

TEST(Sampler, NeverDrawsWhatCannotBe) {
  const float none = -std::numeric_limits<float>::infinity();
  const std::vector<float> logits = {none, 1.0f, none};
  for (const double draw : {0.0, 0.5, 1 - 1e-16}) {
    EXPECT_EQ(sample_token(logits, 1, 1, draw), 1);
    EXPECT_EQ(sample_token(logits, 1, 0.5, draw), 1);
  }
  const std::vector<float> broken = {1.0f, std::nanf(""), 0.0f};
  EXPECT_THROW(sample_token(broken, 1, 1, 0.5), Failure);
  const std::vector<float> first_broken = {std::nanf(""), 0.0f};
  EXPECT_THROW(sample_token(first_broken, 1, 1, 0.5), Failure);
}

TEST(UniformDraw, IsUniformAndAFunctionOfSeedAndCounter) {
  double sum = 0, squares = 0, lag = 0, before = 0;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const double u = uniform_draw(3, static_cast<std::uint64_t>(i));
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
    squares += u * u;
    lag += (u - 0.5) * (before - 0.5);
    before = u;
  }
  // Five standard deviations: of the mean sqrt(1/12 n), of the square's mean sqrt(4/45 n), of the lag product 1/12
  // sqrt(n).
  EXPECT_NEAR(sum / kDraws, 0.5, 5 * std::sqrt(1.0 / 12 / kDraws));
  EXPECT_NEAR(squares / kDraws, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / kDraws));
  EXPECT_NEAR(lag / kDraws, 0, 5.0 / 12 / std::sqrt(kDraws));
  EXPECT_EQ(uniform_draw(3, 5), uniform_draw(3, 5));
  EXPECT_NE(uniform_draw(3, 5), uniform_draw(4, 5));
  EXPECT_NE(uniform_draw(0, 1), uniform_draw(1, 0));
}

}  // namespace
}  // namespace skein
