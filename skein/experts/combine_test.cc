#include "skein/experts/combine.h"

#include <random>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/experts/random_experts.h"

namespace skein {
namespace {

using ::testing::HasSubstr;

const std::vector<SlotName> kSlots{slot_named("m.q_proj", 20, 14), slot_named("m.down_proj", 9, 16)};

at::Tensor a_of(const LoraTensors& module) {
  return at::tensor(module.a).view({module.rank, kSlots[module.slot_idx].d_in}).to(at::kDouble);
}
at::Tensor b_of(const LoraTensors& module) {
  return module.scale * at::tensor(module.b).view({kSlots[module.slot_idx].d_out, module.rank}).to(at::kDouble);
}
at::Tensor product(const LoraTensors& module) { return b_of(module).matmul(a_of(module)); }

// Experts of other ranks and scales; the third lacks down_proj.
struct Three {
  std::vector<LoraAdapter> adapters;
  std::vector<const LoraAdapter*> pointers;
  Three() {
    std::mt19937_64 generator(4);
    adapters.push_back(random_adapter(kSlots, {3, 3}, generator));
    adapters.push_back(random_adapter(kSlots, {3, 5}, generator));
    adapters.push_back(random_adapter(kSlots, {2, 0}, generator));
    adapters[1].modules[0].scale = 2;
    for (const LoraAdapter& adapter : adapters) pointers.push_back(&adapter);
  }
};

at::Tensor padded(const at::Tensor& factor, std::int64_t dim, std::int64_t rank) {
  std::vector<std::int64_t> shape = factor.sizes().vec();
  shape[dim] = rank - shape[dim];
  return at::cat({factor, at::zeros(shape, factor.options())}, dim);
}

TEST(WeightedFactors, AreTheSumsOfAAndOfB) {
  const Three three;
  const LoraAdapter sum = weighted_factors(three.pointers, {0.5, -1, 0.25});
  ASSERT_EQ(sum.modules.size(), 2u);
  at::Tensor a = at::zeros({3, 20}, at::kDouble), b = at::zeros({14, 3}, at::kDouble);
  const std::vector<double> weights = {0.5, -1, 0.25};
  for (int e = 0; e < 3; ++e) {
    a += weights[e] * padded(a_of(three.adapters[e].modules[0]), 0, 3);
    b += weights[e] * padded(b_of(three.adapters[e].modules[0]), 1, 3);
  }
  EXPECT_TRUE(at::allclose(product(sum.modules[0]), b.matmul(a), 1e-5, 1e-6));
  EXPECT_EQ(sum.modules[1].rank, 5);
}

TEST(WeightedFactors, OfOneAreThatAdapter) {
  const Three three;
  const LoraAdapter one = weighted_factors({three.pointers[1]}, {1});
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(at::allclose(product(one.modules[i]), product(three.adapters[1].modules[i]), 1e-5, 1e-6));
  }
}

TEST(WithoutGeneral, SubtractsTheMeanFactorsAndKeepsTheScale) {
  std::mt19937_64 generator(5);
  const LoraAdapter expert = random_adapter(kSlots, {3, 2}, generator);
  const LoraAdapter first = random_adapter(kSlots, {3, 2}, generator),
                    second = random_adapter(kSlots, {3, 2}, generator);
  const LoraAdapter result = without_general(expert, {&first, &second}, kSlots);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(result.modules[i].scale, expert.modules[i].scale);
    for (std::size_t j = 0; j < expert.modules[i].a.size(); ++j) {
      ASSERT_NEAR(result.modules[i].a[j], expert.modules[i].a[j] - (first.modules[i].a[j] + second.modules[i].a[j]) / 2,
                  1e-6);
    }
    for (std::size_t j = 0; j < expert.modules[i].b.size(); ++j) {
      ASSERT_NEAR(result.modules[i].b[j], expert.modules[i].b[j] - (first.modules[i].b[j] + second.modules[i].b[j]) / 2,
                  1e-6);
    }
  }
}

TEST(WithoutGeneral, NeedsTheSameRank) {
  const Three three;
  try {
    without_general(three.adapters[0], {three.pointers[2]}, kSlots);
    FAIL() << "accepted";
  } catch (const Failure& failure) {
    EXPECT_THAT(failure.what(), HasSubstr("rank 2 at m.q_proj"));
  }
}

TEST(Concatenated, IsTheWeightedSumOfTheProducts) {
  const Three three;
  const LoraAdapter joined = concatenated(three.pointers, {{0.5, 0.25, 2}, {0, 1.5, 7}});
  ASSERT_EQ(joined.modules.size(), 2u);
  EXPECT_EQ(joined.modules[0].rank, 8);
  EXPECT_EQ(joined.modules[1].rank, 5);  // the first has weight 0 there, the third is not there
  const at::Tensor want = 0.5 * product(three.adapters[0].modules[0]) + 0.25 * product(three.adapters[1].modules[0]) +
                          2 * product(three.adapters[2].modules[0]);
  EXPECT_TRUE(at::allclose(product(joined.modules[0]), want, 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(product(joined.modules[1]), 1.5 * product(three.adapters[1].modules[1]), 1e-5, 1e-6));
}

TEST(OfRank, IsTheTruncatedSvdOfTheProduct) {
  const Three three;
  const LoraAdapter joined = concatenated(three.pointers, {{1, 1, 1}, {1, 1, 0}});
  std::vector<double> lost;
  const LoraAdapter small = of_rank(joined, kSlots, 4, &lost);
  for (int i = 0; i < 2; ++i) {
    const at::Tensor whole = product(joined.modules[i]);
    const auto [u, sigma, vh] = at::linalg_svd(whole, false);
    const at::Tensor best = (u.narrow(1, 0, 4) * sigma.narrow(0, 0, 4)).matmul(vh.narrow(0, 0, 4));
    EXPECT_EQ(small.modules[i].rank, 4);
    EXPECT_TRUE(at::allclose(product(small.modules[i]), best, 1e-5, 1e-6));
    EXPECT_NEAR(lost[i], ((whole - best).norm() / whole.norm()).item<double>(), 1e-6);
    EXPECT_GT(lost[i], 0.01);
  }
  const LoraAdapter same = of_rank(joined, kSlots, 100, nullptr);
  EXPECT_EQ(same.modules[0].a, joined.modules[0].a);
}

}  // namespace
}  // namespace skein
