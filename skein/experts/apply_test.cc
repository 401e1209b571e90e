#include "skein/experts/apply.h"

#include <limits>
#include <random>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "skein/experts/random_experts.h"

namespace skein {
namespace {

constexpr std::int64_t kIn = 70;
constexpr std::int64_t kOut = 150;
const std::vector<SlotName> kSlots{slot_named("m.q_proj", kIn, kOut)};

at::Tensor normal(std::vector<std::int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::kFloat);
}

ExpertBank bank_of(const std::vector<LoraAdapter>& adapters, c10::ScalarType dtype) {
  std::vector<std::string> names;
  for (std::size_t e = 0; e < adapters.size(); ++e) names.push_back("expert_" + std::to_string(e));
  return ExpertBank(adapters, names, kSlots, ComputeOptions{.dtype = dtype});
}

// Ranks that fill vectors and that do not; the last expert lacks the slot.
std::vector<LoraAdapter> mixed_experts() {
  std::mt19937_64 generator(7);
  std::vector<LoraAdapter> adapters;
  for (const std::int64_t rank : {16, 3, 8, 33, 16, 1, 0})
    adapters.push_back(random_adapter(kSlots, {rank}, generator));
  return adapters;
}

Mixture random_mixture(std::int64_t num_rows, std::int64_t k, std::int64_t num_experts, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  Mixture mixture{at::empty({num_rows, k}, at::kInt), at::empty({num_rows, k}, at::kFloat)};
  std::vector<int> experts(num_experts);
  for (std::int64_t e = 0; e < num_experts; ++e) experts[e] = static_cast<int>(e);
  for (std::int64_t n = 0; n < num_rows; ++n) {
    std::shuffle(experts.begin(), experts.end(), generator);
    for (std::int64_t i = 0; i < k; ++i) {
      mixture.ids[n][i] = experts[i];
      mixture.weights[n][i] = std::uniform_real_distribution<float>(0.1F, 1)(generator);
    }
  }
  return mixture;
}

// |y| + sum of |w| |B| |A| |x|: what rounding errors are relative to. (N, D_out) f64
at::Tensor sizes_of(const BankSlot& slot, const Mixture& mixture, const at::Tensor& x, const at::Tensor& y) {
  at::Tensor size = y.to(at::kDouble).abs();
  for (std::int64_t n = 0; n < x.size(0); ++n) {
    for (std::int64_t i = 0; i < mixture.ids.size(1); ++i) {
      const int e = mixture.ids[n][i].item<int>();
      if (!slot.has(e) || mixture.weights[n][i].item<float>() == 0) continue;
      const at::Tensor middle = slot.expert_a(e).to(at::kDouble).abs().mv(x[n].to(at::kDouble).abs());
      size[n] += mixture.weights[n][i].item<double>() * slot.expert_b(e).to(at::kDouble).abs().mv(middle);
    }
  }
  return size;
}

// f32: a sum of D_in terms, then of k R terms, one rounding each. bf16: besides, half a unit (2^-8) for each z and for
// y.
double relative_bound(c10::ScalarType dtype, std::int64_t k) {
  const double f32 = static_cast<double>(kIn + 33 * k + 8) * 0x1p-24;
  return dtype == at::kBFloat16 ? 0x1p-7 + f32 : f32;
}

void expect_equal_within(const at::Tensor& got, const at::Tensor& want, const at::Tensor& bound) {
  const at::Tensor excess = (got.to(at::kDouble) - want).abs() - bound;
  EXPECT_LE(excess.max().item<double>(), 0) << "largest difference " << (got - want).abs().max().item<double>();
}

class ApplyMixture : public ::testing::TestWithParam<c10::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(InEveryType, ApplyMixture, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST_P(ApplyMixture, EqualsTheLoopOverTokensAndExperts) {
  const ExpertBank bank = bank_of(mixed_experts(), GetParam());
  const BankSlot& slot = bank.slot(0);
  for (const std::int64_t num_rows : {1, 2, 7, 40}) {
    for (const std::int64_t k : {1, 2, 5, 7}) {
      const Mixture mixture = random_mixture(num_rows, k, 7, 11);
      const at::Tensor x = normal({num_rows, kIn}, 1).to(GetParam());
      const at::Tensor y = normal({num_rows, kOut}, 2).to(GetParam());
      const at::Tensor want = apply_mixture_reference(slot, mixture, x, y);
      const at::Tensor bound = sizes_of(slot, mixture, x, y) * relative_bound(GetParam(), k);
      expect_equal_within(with_mixture_dense(slot, mixture, x, y), want, bound * 3);  // z, its weight, the weighted z
      const at::Tensor got = y.clone();
      apply_mixture(slot, mixture, x, got);
      expect_equal_within(got, want, bound);
    }
  }
}

TEST_P(ApplyMixture, WritesIntoAViewAndNowhereElse) {
  const ExpertBank bank = bank_of(mixed_experts(), GetParam());
  const Mixture mixture = random_mixture(9, 2, 7, 12);
  const at::Tensor x = normal({9, kIn + 5}, 3).to(GetParam()).narrow(1, 2, kIn);
  const at::Tensor whole = normal({9, kOut + 40}, 4).to(GetParam());
  const at::Tensor before = whole.clone();
  const at::Tensor dense = whole.narrow(1, 10, kOut).clone();
  apply_mixture(bank.slot(0), mixture, x, whole.narrow(1, 10, kOut));
  apply_mixture(bank.slot(0), mixture, x.contiguous(), dense);
  EXPECT_TRUE(at::equal(whole.narrow(1, 10, kOut), dense));
  EXPECT_TRUE(at::equal(whole.narrow(1, 0, 10), before.narrow(1, 0, 10)));
  EXPECT_TRUE(at::equal(whole.narrow(1, 10 + kOut, 30), before.narrow(1, 10 + kOut, 30)));
}

TEST_P(ApplyMixture, ARowIsTheSameBitsAloneInABatchAndOnAnyNumberOfThreads) {
  const ExpertBank bank = bank_of(mixed_experts(), GetParam());
  const std::int64_t num_rows = 600;  // several blocks
  const Mixture mixture = random_mixture(num_rows, 3, 7, 13);
  const at::Tensor x = normal({num_rows, kIn}, 5).to(GetParam());
  const at::Tensor y = normal({num_rows, kOut}, 6).to(GetParam());
  const at::Tensor all = y.clone();
  apply_mixture(bank.slot(0), mixture, x, all);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor serial = y.clone();
  apply_mixture(bank.slot(0), mixture, x, serial);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(serial, all));
  for (std::int64_t n = 0; n < num_rows; n += 37) {
    const at::Tensor alone = y.narrow(0, n, 1).clone();
    apply_mixture(bank.slot(0), Mixture{mixture.ids.narrow(0, n, 1), mixture.weights.narrow(0, n, 1)},
                  x.narrow(0, n, 1), alone);
    ASSERT_TRUE(at::equal(alone, all.narrow(0, n, 1))) << "row " << n;
  }
}

TEST_P(ApplyMixture, PartsSideBySideAreThePartsOneByOneBitForBit) {
  const c10::ScalarType dtype = GetParam();
  const std::vector<SlotName> slots{slot_named("m.q_proj", kIn, kOut), slot_named("m.k_proj", kIn, 40),
                                    slot_named("m.v_proj", kIn, 33)};
  std::mt19937_64 generator(8);
  std::vector<LoraAdapter> adapters;
  std::vector<std::string> names;
  for (const std::int64_t rank : {16, 3, 8, 20, 0}) {
    adapters.push_back(random_adapter(slots, {rank, 16, rank}, generator));
    names.push_back("expert_" + std::to_string(rank));
  }
  const ExpertBank bank(adapters, names, slots, ComputeOptions{.dtype = dtype});
  const int threads = at::get_num_threads();
  for (const std::int64_t num_rows : {1, 3, 1100}) {  // the last: several blocks
    const at::Tensor x = normal({num_rows, kIn}, 3).to(dtype);
    std::vector<MixedPart> parts;
    std::vector<at::Tensor> expected;
    at::set_num_threads(1);
    for (int s = 0; s < 3; ++s) {
      const at::Tensor y = normal({num_rows, slots[s].d_out}, 4 + s).to(dtype);
      parts.push_back({&bank.slot(s), random_mixture(num_rows, 2, 5, 5 + s), y.clone()});
      apply_mixture(bank.slot(s), parts.back().mixture, x, y);
      expected.push_back(y);
    }
    at::set_num_threads(3);
    std::vector<at::Tensor> in_two_steps;
    for (const MixedPart& part : parts) in_two_steps.push_back(part.y.clone());
    if (num_rows <= MixtureProduct::kMaxRows) {
      MixtureProduct product;
      product.shrink(parts, x);
      product.expand(in_two_steps);
    }
    apply_mixtures(parts, x);
    at::set_num_threads(threads);
    for (int s = 0; s < 3; ++s) {
      EXPECT_TRUE(at::equal(parts[s].y, expected[s])) << num_rows << " rows, part " << s;
      if (num_rows <= MixtureProduct::kMaxRows) EXPECT_TRUE(at::equal(in_two_steps[s], expected[s])) << "part " << s;
    }
  }
}

TEST_P(ApplyMixture, SkipsExpertsOfWeightZeroEvenIfTheyHoldNaN) {
  std::vector<LoraAdapter> adapters = mixed_experts();
  for (float& value : adapters[2].modules[0].a) value = std::numeric_limits<float>::quiet_NaN();
  for (float& value : adapters[4].modules[0].b) value = std::numeric_limits<float>::infinity();
  const ExpertBank bank = bank_of(adapters, GetParam());
  Mixture mixture = random_mixture(20, 7, 7, 14);
  mixture.weights = at::where(at::logical_or(mixture.ids == 2, mixture.ids == 4), 0.0F, mixture.weights);
  const at::Tensor x = normal({20, kIn}, 7).to(GetParam());
  const at::Tensor y = normal({20, kOut}, 8).to(GetParam());
  const at::Tensor bound = sizes_of(bank.slot(0), mixture, x, y) * relative_bound(GetParam(), 7);
  const at::Tensor want = apply_mixture_reference(bank.slot(0), mixture, x, y);
  const at::Tensor got = y.clone();
  apply_mixture(bank.slot(0), mixture, x, got);
  expect_equal_within(got, want, bound);
  // Expert by expert, each addition is rounded: 5 of them.
  expect_equal_within(with_mixture_dense(bank.slot(0), mixture, x, y), want, bound * 8);
}

TEST_P(ApplyMixture, LeavesTheBitsOfRowsThatChoseNothing) {
  const ExpertBank bank = bank_of(mixed_experts(), GetParam());
  Mixture mixture = random_mixture(6, 2, 7, 15);
  mixture.weights.select(0, 3).zero_();
  mixture.ids.select(0, 4).fill_(6);  // lacks the slot
  const at::Tensor y = at::full({6, kOut}, -0.0F, at::kFloat).to(GetParam());
  apply_mixture(bank.slot(0), mixture, normal({6, kIn}, 9).to(GetParam()), y);
  for (const int row : {3, 4}) {
    EXPECT_TRUE(at::signbit(y[row]).all().item<bool>()) << "row " << row;  // still -0
  }
  EXPECT_GT(y[0].abs().max().item<float>(), 0);
}

TEST_P(ApplyMixture, TheSameExpertTwiceIsOnceWithTheSumOfTheWeights) {
  const ExpertBank bank = bank_of(mixed_experts(), GetParam());
  const at::Tensor x = normal({5, kIn}, 10).to(GetParam());
  const at::Tensor twice = at::zeros({5, kOut}, x.options());
  const at::Tensor once = at::zeros({5, kOut}, x.options());
  apply_mixture(bank.slot(0), {at::full({5, 2}, 0, at::kInt), at::full({5, 2}, 0.25F)}, x, twice);
  const Mixture sum{at::full({5, 1}, 0, at::kInt), at::full({5, 1}, 0.5F)};
  apply_mixture(bank.slot(0), sum, x, once);
  // Powers of two scale exactly; only the order of f32 sums differs.
  expect_equal_within(twice, once.to(at::kDouble),
                      sizes_of(bank.slot(0), sum, x, at::zeros_like(once)) * relative_bound(GetParam(), 2));
}

TEST(WithMixtureDense, HasTheGradientsOfItsFormula) {
  const ExpertBank bank = bank_of(mixed_experts(), at::kFloat);
  const Mixture mixture = random_mixture(4, 2, 7, 16);
  const at::Tensor x = normal({4, kIn}, 11).requires_grad_(true);
  const at::Tensor weights = mixture.weights.clone().requires_grad_(true);
  const at::Tensor cotangent = normal({4, kOut}, 12);
  (with_mixture_dense(bank.slot(0), {mixture.ids, weights}, x, at::zeros({4, kOut})) * cotangent).sum().backward();
  for (std::int64_t n = 0; n < 4; ++n) {
    at::Tensor grad_x = at::zeros({kIn}, at::kDouble);
    for (std::int64_t i = 0; i < 2; ++i) {
      const int e = mixture.ids[n][i].item<int>();
      if (!bank.slot(0).has(e)) continue;
      const at::Tensor a = bank.slot(0).expert_a(e).to(at::kDouble);
      const at::Tensor h = bank.slot(0).expert_b(e).to(at::kDouble).t().mv(cotangent[n].to(at::kDouble));
      grad_x += weights[n][i].detach().to(at::kDouble) * a.t().mv(h);
      EXPECT_NEAR(weights.grad()[n][i].item<double>(), a.mv(x[n].detach().to(at::kDouble)).dot(h).item<double>(), 1e-4);
    }
    EXPECT_TRUE(at::allclose(x.grad()[n].to(at::kDouble), grad_x, 1e-4, 1e-4));
  }
}

}  // namespace
}  // namespace skein
