#include "skein/route/router.h"

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <random>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/experts/random_experts.h"
#include "skein/route/gate_router.h"

namespace skein {
namespace {

using ::testing::HasSubstr;
using GateNorm = RouterOptions::GateNorm;

constexpr std::int64_t kIn = 38;
const std::vector<SlotName> kSlots{slot_named("m.q_proj", kIn, 8), slot_named("m.k_proj", kIn, 4)};

struct Pool {
  std::vector<LoraAdapter> adapters;
  std::vector<GateFile> gates;
  std::vector<std::string> names;
  ExpertBank bank() const { return ExpertBank(adapters, names, kSlots, ComputeOptions{}); }
};

Pool random_pool(int num_experts, std::uint64_t seed = 1) {
  std::mt19937_64 generator(seed);
  Pool pool;
  for (int e = 0; e < num_experts; ++e) {
    pool.adapters.push_back(random_adapter(kSlots, {2, 2}, generator));
    pool.gates.push_back(random_gate(kSlots, generator));
    pool.names.push_back("expert_" + std::to_string(e));
  }
  return pool;
}

std::vector<float>& gate_of(Pool& pool, int e, int slot_idx = 0) { return pool.gates[e].modules[slot_idx].directions; }

// Rows with a mean and a spread of their own.
at::Tensor random_rows(std::int64_t num_rows, std::uint64_t seed = 9) {
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  const at::Tensor x = at::randn({num_rows, kIn}, generator, at::kFloat);
  return x * at::rand({num_rows, 1}, generator, at::kFloat) * 3 + at::randn({num_rows, 1}, generator, at::kFloat);
}

Mixture route(const Pool& pool, const RouterOptions& options, const at::Tensor& x, int slot_idx = 0) {
  return make_router(options, pool.bank(), pool.gates, ComputeOptions{})->route(slot_idx, x);
}

// The weights of all experts, (N, E) f64; 0 where not chosen.
at::Tensor dense(const Mixture& mixture, std::int64_t num_experts) {
  return at::zeros({mixture.ids.size(0), num_experts}, at::kDouble)
      .scatter_add(1, mixture.ids.to(at::kLong), mixture.weights.to(at::kDouble));
}

// The formulas of methods 5, word for word, in f64: (N, E).
at::Tensor reference_weights(const Pool& pool, const RouterOptions& options, const at::Tensor& x, int slot_idx = 0) {
  const auto num_experts = static_cast<std::int64_t>(pool.adapters.size());
  const at::Tensor weights = at::zeros({x.size(0), num_experts}, at::kDouble);
  for (std::int64_t n = 0; n < x.size(0); ++n) {
    const at::Tensor u = at::layer_norm(x[n].to(at::kDouble), {kIn}, {}, {}, 1e-5);
    std::vector<double> scores;
    for (const GateFile& gate : pool.gates) {
      at::Tensor v = at::tensor(gate.modules[slot_idx].directions).to(at::kDouble);
      if (options.gate_norm == GateNorm::kLayerNorm) v = at::layer_norm(v, {kIn}, {}, {}, 1e-5);
      if (options.gate_norm == GateNorm::kL2) v = v / (v.norm() + 1e-6);
      scores.push_back(u.dot(v).item<double>() / std::sqrt(static_cast<double>(kIn)) / options.temperature);
    }
    double all = 0;
    for (const double score : scores) all += std::exp(score);
    std::vector<int> order(num_experts);
    for (int e = 0; e < num_experts; ++e) order[e] = e;
    std::stable_sort(order.begin(), order.end(), [&](int left, int right) { return scores[left] > scores[right]; });
    double chosen = 0;
    for (int i = 0; i < options.top_k; ++i) chosen += std::exp(scores[order[i]]) / all;
    for (int i = 0; i < options.top_k; ++i) {
      const double p = std::exp(scores[order[i]]) / all;
      weights[n][order[i]] = options.softmax_over_chosen ? p / chosen : p / (chosen + 1e-6);
    }
  }
  return weights;
}

double largest_difference(const at::Tensor& left, const at::Tensor& right) {
  return (left - right).abs().max().item<double>();
}

// f32 scores of size at most sqrt(38) = 6, each a sum of 38 rounded terms: off by some 1e-6, and weights by no more.
constexpr double kWeightTolerance = 1e-5;

TEST(PhatgooseRouter, EqualsTheFormulaForEveryK) {
  for (const int num_experts : {1, 2, 7, 16, 17, 70}) {
    const Pool pool = random_pool(num_experts);
    const at::Tensor x = random_rows(9);
    for (const int k : {1, 2, 3, 7, 16, 70}) {
      if (k > num_experts) continue;
      RouterOptions options;
      options.top_k = k;
      const at::Tensor want = reference_weights(pool, options, x);
      const Mixture mixture = route(pool, options, x);
      EXPECT_LT(largest_difference(dense(mixture, num_experts), want), kWeightTolerance) << num_experts << " " << k;
      // Best first, each expert once.
      EXPECT_TRUE(mixture.weights.diff(1, 1).le(0).all().item<bool>());
      EXPECT_EQ(dense(mixture, num_experts).gt(0).sum().item<std::int64_t>(), want.gt(0).sum().item<std::int64_t>());
    }
  }
}

TEST(PhatgooseRouter, EverySwitchEqualsItsFormula) {
  const Pool pool = random_pool(7);
  const at::Tensor x = random_rows(12);
  for (const GateNorm norm : {GateNorm::kLayerNorm, GateNorm::kL2, GateNorm::kNone}) {
    for (const bool over_chosen : {false, true}) {
      for (const double temperature : {0.2, 1.0, 3.0}) {
        RouterOptions options;
        options.top_k = 3;
        options.gate_norm = norm;
        options.softmax_over_chosen = over_chosen;
        options.temperature = temperature;
        EXPECT_LT(largest_difference(dense(route(pool, options, x), 7), reference_weights(pool, options, x)),
                  kWeightTolerance / std::min(1.0, temperature));
      }
    }
  }
}

TEST(PhatgooseRouter, LibtorchsOperationsAgreeWithTheKernels) {
  const Pool pool = random_pool(20);
  const ExpertBank bank = pool.bank();
  std::vector<bool> is_allowed(20, true);
  is_allowed[4] = false;
  at::Tensor x = random_rows(30);
  x[3][5] = std::numeric_limits<float>::quiet_NaN();
  for (const bool over_chosen : {false, true}) {
    RouterOptions options;
    options.softmax_over_chosen = over_chosen;
    const GateRouter kernels(options, bank, pool.gates, is_allowed, ComputeOptions{});
    const GateRouter libtorch(options, bank, pool.gates, is_allowed, ComputeOptions{}, /*by_libtorch=*/true);
    EXPECT_LT(largest_difference(dense(kernels.route(1, x), 20), dense(libtorch.route(1, x), 20)), kWeightTolerance);
  }
}

TEST(PhatgooseRouter, ScoresInBf16OnlyIfAsked) {
  const Pool pool = random_pool(5);
  const at::Tensor x = random_rows(50);
  RouterOptions options;
  options.top_k = 5;
  const at::Tensor exact = dense(route(pool, options, x), 5);
  options.bf16_scores = true;
  // Scores up to 6 in steps of up to 2^-7 of themselves before the division by sqrt(38): weights off by a few percent.
  const double difference = largest_difference(dense(route(pool, options, x), 5), exact);
  EXPECT_GT(difference, 1e-4);
  EXPECT_LT(difference, 0.05);
}

TEST(PhatgooseRouter, TokensInBf16AreScoredInF32) {
  const Pool pool = random_pool(9);
  const at::Tensor x = random_rows(20).to(at::kBFloat16);
  const auto router = make_router({}, pool.bank(), pool.gates, ComputeOptions{});
  const Mixture narrow = router->route(0, x);
  const Mixture wide = router->route(0, x.to(at::kFloat));
  EXPECT_TRUE(at::equal(narrow.ids, wide.ids));
  EXPECT_TRUE(at::equal(narrow.weights, wide.weights));
}

// Many experts and rows in bf16: scores with gates in bf16 first, then exactly where it matters. Nothing of it may
// show.
TEST(PhatgooseRouter, CoarseScoresNeverChangeAChoice) {
  for (const int num_experts : {32, 70}) {
    Pool pool = random_pool(num_experts);
    // Gates so close that bf16 cannot tell them apart, and one twice.
    for (int e = 1; e < num_experts / 2; ++e) {
      for (std::int64_t d = 0; d < kIn; ++d) gate_of(pool, e)[d] = gate_of(pool, 0)[d] + 1e-5F * gate_of(pool, e)[d];
    }
    gate_of(pool, 5) = gate_of(pool, 3);
    const at::Tensor x = at::cat({random_rows(100), at::tensor(gate_of(pool, 0)).unsqueeze(0)}).to(at::kBFloat16);
    for (const int k : {1, 2, 4}) {
      const RouterOptions options{.top_k = k};
      const auto coarse = make_router(options, pool.bank(), pool.gates, ComputeOptions{.dtype = at::kBFloat16});
      const Mixture got = coarse->route(0, x);
      // Chosen by scores that f32 can tell apart: the best k of the formula, up to 1e-5.
      const at::Tensor all = reference_weights(pool, {.top_k = num_experts}, x.to(at::kDouble));
      const at::Tensor bar = std::get<0>(all.topk(k, 1)).select(1, k - 1);
      const at::Tensor chosen = all.gather(1, got.ids.to(at::kLong));
      EXPECT_TRUE(chosen.ge(bar.unsqueeze(1) * (1 - 2e-5)).all().item<bool>()) << num_experts << " " << k;
      // And weighted as f32 scores weight them.
      const at::Tensor want = chosen / (chosen.sum(1, true) + 1e-6);
      EXPECT_LT(largest_difference(got.weights.to(at::kDouble), want), kWeightTolerance);
      for (std::int64_t n = 0; n < x.size(0); n += 10) {
        EXPECT_TRUE(at::equal(coarse->route(0, x.narrow(0, n, 1)).ids[0], got.ids[n]));
      }
    }
  }
}

TEST(PhatgooseRouter, ASingleExpertGetsOneLessTheEpsilon) {
  const Mixture mixture = route(random_pool(1), {.top_k = 1}, random_rows(5));
  EXPECT_TRUE(at::equal(mixture.weights, at::full({5, 1}, 1.0F / (1.0F + 1e-6F))));
}

TEST(PhatgooseRouter, IdenticalExpertsShareEvenlyAndTiesGoToTheLowerIndex) {
  for (const int num_experts : {3, 40}) {
    Pool pool = random_pool(num_experts);
    for (GateFile& gate : pool.gates) gate = pool.gates[0];
    const Mixture mixture = route(pool, {}, random_rows(5));
    EXPECT_TRUE(at::equal(mixture.ids, at::tensor({0, 1}, at::kInt).expand({5, 2})));
    // methods 5.2: short of the whole by about 5e-7 E.
    const double total = mixture.weights.sum(1).max().item<double>();
    EXPECT_NEAR(1 - total, 5e-7 * num_experts, 3e-7);
    EXPECT_TRUE(at::equal(mixture.weights.select(1, 0), mixture.weights.select(1, 1)));
  }
}

TEST(PhatgooseRouter, ConstantsAndPositiveFactorsChangeNothing) {
  Pool pool = random_pool(8);
  const at::Tensor x = random_rows(20);
  const RouterOptions options{.top_k = 8};
  const at::Tensor before = dense(route(pool, options, x), 8);
  // x + c loses about log2(c) bits of x; the 1e-5 of LN weighs less as x grows.
  EXPECT_LT(largest_difference(dense(route(pool, options, x * 50 + 3), 8), before), 1e-3);
  Pool shifted = pool;
  for (float& value : gate_of(shifted, 3)) value = value * 7 + 2;
  EXPECT_LT(largest_difference(dense(route(shifted, options, x), 8), before), 2e-3);  // 1e-5 against a variance of 0.01
}

TEST(PhatgooseRouter, AnExpertCannotBuyTokensWithALongGate) {
  Pool pool = random_pool(6);
  const at::Tensor x = random_rows(200);
  const Mixture before = route(pool, {}, x);
  for (float& value : gate_of(pool, 2)) value *= 1e6F;
  const Mixture after = route(pool, {}, x);
  EXPECT_LT(largest_difference(dense(before, 6), dense(after, 6)), 0.02);  // 1e-5 against a variance of 0.01: 0.05 %
  // Without the norm it can.
  RouterOptions options;
  options.gate_norm = GateNorm::kNone;
  EXPECT_GT(dense(route(pool, options, x), 6).select(1, 2).gt(0.99).to(at::kDouble).mean().item<double>(), 0.3);
}

TEST(PhatgooseRouter, AZeroGateScoresZeroAndBeatsOnesThatPointAway) {
  Pool pool = random_pool(2);
  gate_of(pool, 1).assign(kIn, 0.0F);
  const at::Tensor v = at::tensor(gate_of(pool, 0));
  const Mixture away = route(pool, {.top_k = 1}, (-v).unsqueeze(0));
  EXPECT_EQ(away.ids.item<int>(), 1);
  const Mixture along = route(pool, {.top_k = 2}, v.unsqueeze(0));
  EXPECT_EQ(along.ids[0][0].item<int>(), 0);
  // s = sqrt(D) times the correlation, 1 here but for the 1e-5 of LN, against 0.
  EXPECT_NEAR(along.weights[0][1].item<double>() / along.weights[0][0].item<double>(), std::exp(-std::sqrt(38.0)),
              1e-4);
}

TEST(PhatgooseRouter, PermutingTheExpertsPermutesTheChoice) {
  const Pool pool = random_pool(11);
  Pool turned;
  for (int e = 0; e < 11; ++e) {
    const int from = (e * 4 + 3) % 11;
    turned.adapters.push_back(pool.adapters[from]);
    turned.gates.push_back(pool.gates[from]);
    turned.names.push_back(pool.names[from]);
  }
  const at::Tensor x = random_rows(25);
  const at::Tensor plain = dense(route(pool, {}, x), 11);
  const at::Tensor other = dense(route(turned, {}, x), 11);
  for (int e = 0; e < 11; ++e) {
    EXPECT_LT(largest_difference(other.select(1, e), plain.select(1, (e * 4 + 3) % 11)), 1e-6) << e;
  }
}

TEST(PhatgooseRouter, ARowsChoiceIsTheSameBitsAloneAndInABatch) {
  const Pool pool = random_pool(37);
  const ExpertBank bank = pool.bank();
  const auto router = make_router({.top_k = 4}, bank, pool.gates, ComputeOptions{});
  const at::Tensor x = random_rows(150);
  const Mixture all = router->route(0, x);
  for (int n = 0; n < 150; ++n) {
    const Mixture alone = router->route(0, x.narrow(0, n, 1));
    ASSERT_TRUE(at::equal(alone.ids[0], all.ids[n])) << "row " << n;
    ASSERT_TRUE(at::equal(alone.weights[0], all.weights[n])) << "row " << n;
  }
}

TEST(PhatgooseRouter, AGroupIsRoutedAsItsSlots) {
  // With 36 experts the columns of a group are more than those of one slot, padding included.
  for (const int num_experts : {5, 36}) {
    for (const c10::ScalarType dtype : {c10::ScalarType::Float, c10::ScalarType::BFloat16}) {
      const Pool pool = random_pool(num_experts);
      const auto router = make_router({}, pool.bank(), pool.gates, ComputeOptions{at::kCPU, dtype});
      const at::Tensor x = random_rows(10).to(dtype);
      const std::vector<Mixture> group = router->route_group({0, 1}, x, {});
      for (int s = 0; s < 2; ++s) {
        EXPECT_TRUE(at::equal(group[s].ids, router->route(s, x).ids)) << num_experts << " experts, slot " << s;
        const at::Tensor want = reference_weights(pool, {}, x.to(at::kFloat), s);
        EXPECT_LT(largest_difference(dense(group[s], num_experts), want), kWeightTolerance);
      }
      EXPECT_FALSE(at::equal(group[0].ids, group[1].ids));  // every slot decides for itself
    }
  }
}

TEST(PhatgooseRouter, LeavesOutExpertsSwitchedOffAndThoseWithoutTheSlot) {
  Pool pool = random_pool(6);
  pool.adapters[1].modules.erase(pool.adapters[1].modules.begin());
  pool.gates[1].modules.erase(pool.gates[1].modules.begin());
  pool.gates[5].modules.clear();  // needs no gate while it is off
  Pool left;
  for (const int e : {0, 3, 4}) {
    left.adapters.push_back(pool.adapters[e]);
    left.gates.push_back(pool.gates[e]);
    left.names.push_back(pool.names[e]);
  }
  const at::Tensor x = random_rows(30);
  const at::Tensor want = dense(route(left, {}, x), 3);
  for (const RouterOptions& options : {RouterOptions{.without = {"expert_2", "expert_5"}},
                                       RouterOptions{.only = {"expert_0", "expert_1", "expert_3", "expert_4"}}}) {
    const at::Tensor got = dense(route(pool, options, x), 6);
    EXPECT_LT(largest_difference(got.index_select(1, at::tensor({0, 3, 4}, at::kLong)), want), 1e-6);
    EXPECT_EQ(got.index_select(1, at::tensor({1, 2, 5}, at::kLong)).abs().max().item<double>(), 0);
  }
}

TEST(PhatgooseRouter, WithFewerExpertsThanKTheRestWeighsNothing) {
  const Pool pool = random_pool(4);
  const Mixture mixture = route(pool, {.top_k = 3, .only = {"expert_2"}}, random_rows(5));
  EXPECT_TRUE(mixture.ids.select(1, 0).eq(2).all().item<bool>());
  EXPECT_TRUE(at::equal(mixture.weights.select(1, 0), at::full({5}, 1.0F / (1.0F + 1e-6F))));
  EXPECT_EQ(mixture.weights.narrow(1, 1, 2).abs().max().item<float>(), 0);
}

TEST(PhatgooseRouter, ARowWithANaNChoosesNothingAndDisturbsNobody) {
  const Pool pool = random_pool(4);
  at::Tensor x = random_rows(6);
  const Mixture before = route(pool, {}, x);
  x[2][1] = std::numeric_limits<float>::quiet_NaN();
  const Mixture after = route(pool, {}, x);
  EXPECT_EQ(after.weights[2].abs().max().item<float>(), 0);
  for (const int n : {0, 1, 3, 4, 5}) EXPECT_TRUE(at::equal(after.weights[n], before.weights[n])) << n;
}

TEST(PhatgooseRouter, TokensFollowTheGatesPlantedForTheirTask) {
  Pool pool = random_pool(8);
  std::mt19937_64 generator(5);
  const at::Tensor directions = at::randn({2, kIn}, at::detail::createCPUGenerator(6), at::kFloat);
  for (int task = 0; task < 2; ++task) {
    gate_of(pool, 3 + task) = random_values(kIn, 0.02, generator);
    for (std::int64_t d = 0; d < kIn; ++d) gate_of(pool, 3 + task)[d] += 0.1F * directions[task][d].item<float>();
  }
  for (int task = 0; task < 2; ++task) {
    const at::Tensor x = directions[task] + 0.5 * at::randn({300, kIn}, at::detail::createCPUGenerator(7), at::kFloat);
    EXPECT_GT(dense(route(pool, {}, x), 8).select(1, 3 + task).mean().item<double>(), 0.8);
  }
}

// The choice itself, word for word, from scores of all experts over the temperature: (E).
std::vector<double> chosen_weights(const std::vector<double>& scores, const RouterOptions& options) {
  std::vector<int> order(scores.size());
  for (std::size_t e = 0; e < scores.size(); ++e) order[e] = static_cast<int>(e);
  std::stable_sort(order.begin(), order.end(), [&](int left, int right) { return scores[left] > scores[right]; });
  double all = 0;
  for (const double score : scores) all += std::exp(score - scores[order[0]]);
  std::vector<double> weights(scores.size(), 0.0);
  double chosen = 0;
  for (int i = 0; i < options.top_k && chosen < options.top_p; ++i) {
    weights[order[i]] = std::exp(scores[order[i]] - scores[order[0]]) / all;
    chosen += weights[order[i]];
  }
  for (double& weight : weights) weight /= options.softmax_over_chosen ? chosen : chosen + 1e-6;
  return weights;
}

// |G_e x| / T with all directions of each gate, in f64: (N, E).
at::Tensor magnitude_reference(const Pool& pool, const RouterOptions& options, const at::Tensor& x) {
  std::vector<at::Tensor> rows;
  for (std::int64_t n = 0; n < x.size(0); ++n) {
    std::vector<double> scores;
    for (const GateFile& gate : pool.gates) {
      const GateTensors& module = gate.modules[0];
      const at::Tensor g = at::tensor(module.directions).view({module.num_directions, kIn}).to(at::kDouble);
      scores.push_back(g.mv(x[n].to(at::kDouble)).norm().item<double>() / options.temperature);
    }
    rows.push_back(at::tensor(chosen_weights(scores, options), at::kDouble));
  }
  return at::stack(rows);
}

Pool pool_with_directions(int num_experts, const std::function<int(int)>& directions_of) {
  Pool pool = random_pool(num_experts);
  std::mt19937_64 generator(12);
  for (int e = 0; e < num_experts; ++e) {
    for (GateTensors& module : pool.gates[e].modules) {
      module.num_directions = directions_of(e);
      module.directions = random_values(module.num_directions * kIn, 0.3, generator);
    }
  }
  return pool;
}

TEST(MagnitudeRouters, EqualTheFormulaWhateverTheNumberOfDirections) {
  const at::Tensor x = random_rows(11);
  for (const int num_experts : {1, 3, 17, 40}) {
    const Pool arrow = pool_with_directions(num_experts, [](int) { return 1; });
    const Pool spectr = pool_with_directions(num_experts, [](int e) { return 1 + e % 5; });
    for (const double temperature : {0.5, 1.0, 4.0}) {
      for (const int k : {1, 2, 3}) {
        if (k > num_experts) continue;
        RouterOptions options = default_router("arrow");
        EXPECT_TRUE(options.softmax_over_chosen);
        options.top_k = k;
        options.temperature = temperature;
        // Scores up to 15, in f32 within 1e-6 of themselves, divided by the temperature.
        const double tolerance = 2e-5 / temperature;
        EXPECT_LT(
            largest_difference(dense(route(arrow, options, x), num_experts), magnitude_reference(arrow, options, x)),
            tolerance);
        options.kind = "spectr";
        EXPECT_LT(
            largest_difference(dense(route(spectr, options, x), num_experts), magnitude_reference(spectr, options, x)),
            tolerance);
      }
    }
  }
}

TEST(MagnitudeRouters, LibtorchsOperationsAgreeAndASignChangesNothing) {
  Pool pool = pool_with_directions(9, [](int e) { return 1 + e % 3; });
  at::Tensor x = random_rows(20);
  x[3][5] = std::numeric_limits<float>::quiet_NaN();
  RouterOptions options = default_router("spectr");
  options.top_k = 4;
  const ExpertBank bank = pool.bank();
  std::vector<bool> is_allowed(9, true);
  is_allowed[2] = false;
  const at::Tensor bias = at::randn({20, 9}, at::detail::createCPUGenerator(3), at::kFloat);
  const GateRouter kernels(options, bank, pool.gates, is_allowed, ComputeOptions{});
  const GateRouter libtorch(options, bank, pool.gates, is_allowed, ComputeOptions{}, /*by_libtorch=*/true);
  const at::Tensor by_kernels = dense(kernels.route_group({1}, x, bias)[0], 9);
  EXPECT_LT(largest_difference(by_kernels, dense(libtorch.route_group({1}, x, bias)[0], 9)), 2e-5);
  EXPECT_EQ(by_kernels.select(1, 2).abs().max().item<double>(), 0);
  EXPECT_EQ(by_kernels[3].abs().max().item<double>(), 0);
  for (float& value : gate_of(pool, 4, 1)) value = -value;
  const GateRouter turned(options, bank, pool.gates, is_allowed, ComputeOptions{});
  EXPECT_TRUE(at::equal(dense(turned.route_group({1}, x, bias)[0], 9), by_kernels));
}

TEST(GateRouters, TopPKeepsTheFewestExpertsWithThatShare) {
  const Pool pool = pool_with_directions(12, [](int) { return 1; });
  const at::Tensor x = random_rows(40);
  const ExpertBank bank = pool.bank();
  for (const bool over_chosen : {false, true}) {
    for (const double top_p : {0.05, 0.5, 0.9}) {
      RouterOptions options = default_router("arrow");
      options.softmax_over_chosen = over_chosen;
      options.top_k = 12;
      options.top_p = top_p;
      options.temperature = 3;
      const at::Tensor want = magnitude_reference(pool, options, x);
      EXPECT_LT(largest_difference(dense(route(pool, options, x), 12), want), kWeightTolerance);
      const GateRouter libtorch(options, bank, pool.gates, std::vector<bool>(12, true), ComputeOptions{}, true);
      EXPECT_LT(largest_difference(dense(libtorch.route(0, x), 12), want), kWeightTolerance);
    }
  }
}

TEST(GateRouters, ABiasOfTheRowIsAddedToTheScoresOfItsExperts) {
  // bf16 with many experts takes the coarse path, f32 the other.
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Pool pool = random_pool(40);
    const at::Tensor x = random_rows(30).to(dtype);
    at::Tensor bias = at::randn({30, 40}, at::detail::createCPUGenerator(8), at::kFloat) * 3;
    bias[0].fill_(-std::numeric_limits<float>::infinity());
    bias[0][17] = 0;
    const RouterOptions options{.top_k = 3, .temperature = 0.7};
    const auto router = make_router(options, pool.bank(), pool.gates, ComputeOptions{.dtype = dtype});
    const at::Tensor got = dense(router->route_group({0}, x, bias)[0], 40);
    for (std::int64_t n = 0; n < 30; ++n) {
      const at::Tensor u = at::layer_norm(x[n].to(at::kDouble), {kIn}, {}, {}, 1e-5);
      std::vector<double> scores;
      for (int e = 0; e < 40; ++e) {
        const at::Tensor v =
            at::layer_norm(at::tensor(pool.gates[e].modules[0].directions).to(at::kDouble), {kIn}, {}, {}, 1e-5);
        scores.push_back((u.dot(v).item<double>() / std::sqrt(static_cast<double>(kIn)) + bias[n][e].item<double>()) /
                         0.7);
      }
      const at::Tensor want = at::tensor(chosen_weights(scores, options), at::kDouble);
      ASSERT_LT(largest_difference(got[n], want), 2 * kWeightTolerance) << n;
    }
    EXPECT_NEAR(got[0][17].item<double>(), 1, 2e-6);
  }
}

TEST(Controls, ShuffledGatesAreTheSameGatesOfOtherExperts) {
  const Pool pool = random_pool(6);
  const at::Tensor x = random_rows(50);
  RouterOptions options{.top_k = 6};
  const at::Tensor own = dense(route(pool, options, x), 6);
  options.gates = RouterOptions::Gates::kShuffled;
  const at::Tensor shuffled = dense(route(pool, options, x), 6);
  EXPECT_FALSE(at::allclose(own, shuffled));
  // Every row holds the same weights, only of others.
  EXPECT_LT(largest_difference(std::get<0>(own.sort(1)), std::get<0>(shuffled.sort(1))), 1e-6);
  options.seed = 1;
  EXPECT_FALSE(at::allclose(dense(route(pool, options, x), 6), shuffled));
  options.gates = RouterOptions::Gates::kRandom;
  const at::Tensor random = dense(route(pool, options, x), 6);
  EXPECT_GT(largest_difference(std::get<0>(own.sort(1)), std::get<0>(random.sort(1))), 1e-3);
  EXPECT_TRUE(at::equal(dense(route(pool, options, x), 6), random));
}

TEST(HintRouter, GivesTheWholeTextToTheExpertThatTheHintNames) {
  const Pool pool = random_pool(4);
  RouterOptions options = default_router("retrieval");
  options.without = {"expert_3"};
  const auto router = make_router(options, pool.bank(), {}, ComputeOptions{});
  const float nothing = -std::numeric_limits<float>::infinity();
  const at::Tensor bias = at::tensor({nothing, 0.0F, nothing, nothing, 0.0F, nothing, nothing, 0.0F}).view({2, 4});
  const at::Tensor got = dense(router->route_group({0}, random_rows(2), bias)[0], 4);
  EXPECT_TRUE(at::equal(got[0], at::tensor({0.0, 1.0, 0.0, 0.0}, at::kDouble)));
  EXPECT_TRUE(at::equal(got[1], at::tensor({1.0, 0.0, 0.0, 0.0}, at::kDouble)));
  EXPECT_THROW(router->route(0, random_rows(2)), Failure);
}

TEST(UniformRouter, DrawsEveryExpertEquallyAndDependsOnTheRowOnly) {
  const Pool pool = random_pool(5);
  const at::Tensor x = random_rows(4000);
  const RouterOptions options{.kind = "uniform", .top_k = 2, .without = {"expert_1"}};
  const Mixture mixture = route(pool, options, x);
  EXPECT_TRUE(mixture.weights.eq(0.5).all().item<bool>());
  EXPECT_FALSE(mixture.ids.select(1, 0).eq(mixture.ids.select(1, 1)).any().item<bool>());
  const at::Tensor shares = dense(mixture, 5).mean(0);
  for (const int e : {0, 2, 3, 4}) EXPECT_NEAR(shares[e].item<double>(), 0.25, 0.02) << e;  // 5 standard errors
  EXPECT_EQ(shares[1].item<double>(), 0);
  EXPECT_TRUE(at::equal(route(pool, options, x.narrow(0, 77, 1)).ids[0], mixture.ids[77]));
  EXPECT_FALSE(at::equal(route(pool, options, x, 1).ids, mixture.ids));  // another slot
  RouterOptions other = options;
  other.seed = 1;
  EXPECT_FALSE(at::equal(route(pool, other, x).ids, mixture.ids));
}

TEST(FixedRouters, SingleHasWeightOneAndMergedOneOverE) {
  const Pool pool = random_pool(4);
  const Mixture single = route(pool, {.kind = "single", .expert = "expert_2"}, random_rows(3));
  EXPECT_TRUE(at::equal(single.ids, at::full({3, 1}, 2, at::kInt)));
  EXPECT_TRUE(at::equal(single.weights, at::full({3, 1}, 1.0F)));
  const Mixture merged = route(pool, {.kind = "merged"}, random_rows(3));
  EXPECT_TRUE(at::equal(dense(merged, 4), at::full({3, 4}, 0.25, at::kDouble)));
  const Mixture two = route(pool, {.kind = "merged", .only = {"expert_3", "expert_1"}}, random_rows(3));
  EXPECT_TRUE(at::equal(dense(two, 4)[0], at::tensor({0.0, 0.5, 0.0, 0.5}, at::kDouble)));
}

TEST(MakeRouter, RefusesWhatMakesNoSense) {
  Pool pool = random_pool(3);
  const auto refusal = [&](const RouterOptions& options) -> std::string {
    try {
      route(pool, options, random_rows(1));
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.error().kind, ErrorKind::kUsage);
      return failure.what();
    }
    return "accepted";
  };
  EXPECT_THAT(refusal({.kind = "goose"}), HasSubstr("goose"));
  EXPECT_THAT(refusal({.top_k = 0}), HasSubstr("1 to 3"));
  EXPECT_THAT(refusal({.top_k = 4}), HasSubstr("top-k 4"));
  EXPECT_THAT(refusal({.temperature = 0}), HasSubstr("temperature"));
  EXPECT_THAT(refusal({.top_p = 0}), HasSubstr("top-p"));
  EXPECT_THAT(refusal({.only = {"expert_9"}}), HasSubstr("expert_9"));
  EXPECT_THAT(refusal({.without = {"expert_0", "expert_1", "expert_2"}}), HasSubstr("switched off"));
  EXPECT_THAT(refusal({.kind = "single", .expert = ""}), HasSubstr("expert_0, expert_1, expert_2"));
  gate_of(pool, 2).pop_back();
  EXPECT_THAT(refusal({}), HasSubstr("37 numbers"));
  gate_of(pool, 2).push_back(0);
  pool.gates[1].modules.pop_back();
  EXPECT_THAT(refusal({}), ::testing::AllOf(HasSubstr("expert_1"), HasSubstr("m.k_proj")));
  pool.gates.clear();
  EXPECT_THAT(refusal({}), HasSubstr("no phatgoose gate"));
  EXPECT_THAT(refusal({.kind = "arrow"}), HasSubstr("no arrow gate"));
}

}  // namespace
}  // namespace skein
