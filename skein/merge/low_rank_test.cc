#include "skein/merge/low_rank.h"

#include <gtest/gtest.h>

#include <cmath>

namespace skein::merge {
namespace {

double uniform(std::uint64_t seed, std::int64_t at) {
  return random_number(stream_key(seed, "low_rank_test"), 0, at) / 4294967296.0 - 0.5;
}

Factors random_factors(std::int64_t d_out, std::int64_t d_in, std::int64_t rank, std::uint64_t seed) {
  Factors factors{.d_out = d_out, .d_in = d_in, .rank = rank, .b = {}, .a = {}};
  for (std::int64_t at = 0; at < d_out * rank; ++at) factors.b.push_back(static_cast<float>(uniform(seed, at)));
  for (std::int64_t at = 0; at < d_in * rank; ++at) factors.a.push_back(static_cast<float>(uniform(seed + 1, at)));
  return factors;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t at = 0; at < a.size(); ++at) sum += (a[at] - b[at]) * static_cast<double>(a[at] - b[at]);
  return std::sqrt(sum);
}
double norm(const std::vector<float>& a) { return distance(a, std::vector<float>(a.size())); }

TEST(LowRank, KnowsTheValuesOfAMatrixWorkedByHand) {
  // [[3, 0], [4, 5]] has the singular values sqrt(45) and sqrt(5).
  const Truncated one = truncate_dense({3, 0, 4, 5}, 2, 2, 1, {});
  EXPECT_NEAR(norm(dense_product(one.factors, 1)), std::sqrt(45.0), 1e-6);
  EXPECT_NEAR(one.relative_error, std::sqrt(5.0 / 50), 1e-7);
}

TEST(LowRank, TruncatesFactorsAsTheDenseMatrixAndMeasuresTheLoss) {
  for (const auto& [d_out, d_in, rank] : {std::tuple{20, 13, 6}, std::tuple{5, 13, 6}, std::tuple{13, 4, 6}}) {
    const Factors whole = random_factors(d_out, d_in, rank, 17);
    const std::vector<float> dense = dense_product(whole, 1);
    const Truncated a = truncate(whole, 3);
    const Truncated b = truncate_dense(dense, d_out, d_in, 3, {});
    // Both are the best approximation; f32 storage of factors of size about 1 is what is left.
    EXPECT_LT(distance(dense_product(a.factors, 1), dense_product(b.factors, 1)), 1e-5 * norm(dense));
    EXPECT_NEAR(a.relative_error, distance(dense, dense_product(a.factors, 1)) / norm(dense), 1e-5);
    EXPECT_NEAR(a.relative_error, b.relative_error, 1e-5);
  }
}

TEST(LowRank, LosesNothingAtFullRank) {
  const Factors whole = random_factors(12, 9, 4, 5);
  const Truncated same = truncate(whole, 6);  // more than there is: zeros fill the rest
  EXPECT_LT(same.relative_error, 1e-7);
  EXPECT_EQ(same.factors.rank, 6);
  EXPECT_LT(distance(dense_product(same.factors, 1), dense_product(whole, 1)), 1e-6 * norm(dense_product(whole, 1)));
}

TEST(LowRank, FindsTheLeadingRangeOfALargeMatrixWithItsError) {
  // Rank 12 beside noise of a thousandth: the randomised path must find what the exact one would.
  const std::int64_t side = 400;
  std::vector<float> dense = dense_product(random_factors(side, side, 12, 23), 1);
  for (std::size_t at = 0; at < dense.size(); ++at) dense[at] += static_cast<float>(1e-3 * uniform(99, at));
  const Truncated found = truncate_dense(dense, side, side, 12, stream_key(1, "x"));
  const double error = distance(dense, dense_product(found.factors, 1)) / norm(dense);
  EXPECT_NEAR(found.relative_error, error, 1e-6);
  const double noise =
      1e-3 * std::sqrt(1.0 / 12) * side;  // of the whole matrix; less than 2 rank / side is in the range
  EXPECT_LT(error, 1.001 * noise / norm(dense));
}

}  // namespace
}  // namespace skein::merge
