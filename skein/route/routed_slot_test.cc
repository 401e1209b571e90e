#include "skein/route/routed_slot.h"

#include <random>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "skein/experts/apply.h"
#include "skein/experts/random_experts.h"

namespace skein {
namespace {

constexpr std::int64_t kIn = 40;
const std::vector<SlotName> kSlots{slot_named("m.q_proj", kIn, 72), slot_named("m.k_proj", kIn, 24),
                                   slot_named("m.v_proj", kIn, 24), slot_named("m.o_proj", kIn, kIn)};

at::Tensor normal(std::vector<std::int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::kFloat);
}

LinearGroup make_group(c10::ScalarType dtype) {
  return make_linear_group(
      {normal({72, kIn}, 1).to(dtype), normal({24, kIn}, 2).to(dtype), normal({24, kIn}, 3).to(dtype)},
      {{}, normal({24}, 4).to(dtype), {}}, {0, 1, 2});
}

struct Pool {
  std::vector<LoraAdapter> adapters;
  std::vector<GateFile> gates;
  std::vector<std::string> names;

  void add(const LoraAdapter& adapter, const GateFile& gate) {
    names.push_back("expert_" + std::to_string(adapters.size()));
    adapters.push_back(adapter);
    gates.push_back(gate);
  }
  RoutedSlots slots(const RouterOptions& options, c10::ScalarType dtype) const {
    const ComputeOptions compute{.dtype = dtype};
    auto bank = std::make_shared<const ExpertBank>(adapters, names, kSlots, compute);
    auto router = make_router(options, *bank, gates, compute);
    return RoutedSlots(std::move(bank), std::move(router));
  }
};

// Experts of several ranks; nobody adapts o_proj, and expert 1 does not adapt k_proj.
Pool random_pool(int num_experts) {
  std::mt19937_64 generator(3);
  Pool pool;
  for (int e = 0; e < num_experts; ++e) {
    const std::int64_t rank = 4 + e;
    pool.add(random_adapter(kSlots, {rank, e == 1 ? 0 : rank, 16, 0}, generator), random_gate(kSlots, generator));
  }
  return pool;
}

std::vector<at::Tensor> run(const RoutedSlots& slots, const LinearGroup& group, const at::Tensor& x,
                            std::shared_ptr<SlotMemory> memory = nullptr) {
  const at::NoGradGuard no_grad;
  ForwardState state{&slots, std::move(memory)};
  return slots.forward(group, x, state);
}

// (N, D_out) f64: W x + b + sum of weights[e] s_e B_e A_e x, from the adapters' own f32 numbers.
at::Tensor by_formula(const Pool& pool, const LinearGroup& group, int part, const at::Tensor& x,
                      const std::vector<double>& weights) {
  const FrozenLinear& linear = group.parts[part];
  at::Tensor y = at::linear(x.to(at::kDouble), linear.weight.to(at::kDouble), linear.bias.to(at::kDouble));
  for (std::size_t e = 0; e < weights.size(); ++e) {
    for (const LoraTensors& module : pool.adapters[e].modules) {
      if (module.slot_idx != part) continue;
      const at::Tensor a = at::tensor(module.a).view({module.rank, kIn}).to(at::kDouble);
      const at::Tensor b = at::tensor(module.b).view({kSlots[part].d_out, module.rank}).to(at::kDouble);
      y = y + weights[e] * module.scale * at::linear(at::linear(x.to(at::kDouble), a), b);
    }
  }
  return y;
}

double largest_difference(const at::Tensor& left, const at::Tensor& right) {
  return (left.to(at::kDouble) - right.to(at::kDouble)).abs().max().item<double>();
}

// Sums of 40 + 16 terms of size about 1 in f32.
constexpr double kTolerance = 2e-5;

TEST(RoutedSlots, ASingleExpertOfAPoolIsThatExpertAloneBitForBit) {
  const Pool pool = random_pool(5);
  Pool alone;
  alone.add(pool.adapters[3], {});
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const LinearGroup group = make_group(dtype);
    const at::Tensor x = normal({21, kIn}, 5).to(dtype);
    const auto of_pool = run(pool.slots({.kind = "single", .expert = "expert_3"}, dtype), group, x);
    const auto of_one = run(alone.slots({.kind = "single", .expert = "expert_0"}, dtype), group, x);
    for (int part = 0; part < 3; ++part) {
      EXPECT_TRUE(at::equal(of_pool[part], of_one[part])) << part;
      if (dtype == at::kFloat) {
        EXPECT_LT(largest_difference(of_one[part], by_formula(pool, group, part, x, {0, 0, 0, 1, 0})), kTolerance);
      }
    }
  }
}

TEST(RoutedSlots, APoolOfOneEqualsItsExpertLessTheEpsilon) {
  Pool pool;
  pool.add(random_pool(1).adapters[0], random_pool(1).gates[0]);
  const LinearGroup group = make_group(at::kFloat);
  const at::Tensor x = normal({21, kIn}, 6);
  const auto y = run(pool.slots({.top_k = 1}, at::kFloat), group, x);
  for (int part = 0; part < 3; ++part) {
    EXPECT_LT(largest_difference(y[part], by_formula(pool, group, part, x, {1 / (1 + 1e-6)})), kTolerance);
  }
}

TEST(RoutedSlots, CopiesOfAnExpertEqualTheExpert) {
  const Pool one = random_pool(1);
  Pool copies;
  for (int e = 0; e < 6; ++e) copies.add(one.adapters[0], one.gates[0]);
  const LinearGroup group = make_group(at::kFloat);
  const at::Tensor x = normal({21, kIn}, 7);
  for (const int k : {1, 2, 6}) {
    const auto y = run(copies.slots({.top_k = k}, at::kFloat), group, x);
    for (int part = 0; part < 3; ++part) {
      EXPECT_LT(largest_difference(y[part], by_formula(one, group, part, x, {1})), kTolerance) << "k " << k;
    }
  }
}

TEST(RoutedSlots, MergedIsTheMeanOfTheProducts) {
  const Pool pool = random_pool(4);
  const LinearGroup group = make_group(at::kFloat);
  const at::Tensor x = normal({21, kIn}, 8);
  const auto y = run(pool.slots({.kind = "merged"}, at::kFloat), group, x);
  for (int part = 0; part < 3; ++part) {
    EXPECT_LT(largest_difference(y[part], by_formula(pool, group, part, x, {0.25, 0.25, 0.25, 0.25})), kTolerance);
  }
}

TEST(RoutedSlots, EveryRowGetsTheSumOfItsChoice) {
  const Pool pool = random_pool(6);
  const LinearGroup group = make_group(at::kFloat);
  const at::Tensor x = normal({15, kIn}, 9);
  for (const int k : {1, 2, 6}) {
    const auto record = std::make_shared<RoutingRecord>(4, 6);
    const auto y = run(pool.slots({.top_k = k}, at::kFloat), group, x, record);
    for (int part = 0; part < 3; ++part) {
      const Mixture& mixture = record->mixtures[part].at(0);
      for (std::int64_t n = 0; n < x.size(0); ++n) {
        std::vector<double> weights(6, 0.0);
        for (int i = 0; i < k; ++i) {
          weights[mixture.ids[n][i].item<int>()] += mixture.weights[n][i].item<double>();
        }
        const at::Tensor row = x.narrow(0, n, 1);
        ASSERT_LT(largest_difference(y[part][n], by_formula(pool, group, part, row, weights)[0]), kTolerance);
      }
    }
  }
}

TEST(RoutedSlots, ARowIsTheSameBitsAloneAndInABatch) {
  const Pool pool = random_pool(6);
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const RoutedSlots slots = pool.slots({}, dtype);
    const LinearGroup group = make_group(dtype);
    const at::Tensor x = normal({70, kIn}, 10).to(dtype);
    const auto all = run(slots, group, x);
    for (std::int64_t n = 0; n < 70; n += 9) {
      const auto alone = run(slots, group, x.narrow(0, n, 1));
      for (int part = 0; part < 3; ++part) ASSERT_TRUE(at::equal(alone[part][0], all[part][n])) << "row " << n;
    }
  }
}

TEST(RoutedSlots, WhereNoExpertAttachesThePlainBaseStands) {
  const RoutedSlots slots = random_pool(3).slots({}, at::kFloat);
  const LinearGroup group = make_linear_group({normal({kIn, kIn}, 11)}, {{}}, {3});
  const at::Tensor x = normal({8, kIn}, 12);
  EXPECT_TRUE(at::equal(run(slots, group, x)[0], apply_frozen(group, x)[0]));
}

TEST(RoutedSlots, GradientsReachTheInputThroughTheChosenExperts) {
  const Pool pool = random_pool(5);
  const RoutedSlots slots = pool.slots({}, at::kFloat);
  const LinearGroup group = make_group(at::kFloat);
  const at::Tensor x = normal({7, kIn}, 13);
  const auto without = run(slots, group, x);
  const at::Tensor leaf = x.clone().requires_grad_(true);
  const auto record = std::make_shared<RoutingRecord>(4, 5);
  ForwardState state{&slots, record};
  const auto with = slots.forward(group, leaf, state);
  at::Tensor want = at::zeros({7, kIn}, at::kDouble);
  for (int part = 0; part < 3; ++part) {
    EXPECT_LT(largest_difference(without[part], with[part]), kTolerance);
    const Mixture& mixture = record->mixtures[part].at(0);
    for (int n = 0; n < 7; ++n) {  // of the sum of all outputs: column sums of W + sum of w B A
      want[n] += group.parts[part].weight.to(at::kDouble).sum(0);
      for (int i = 0; i < 2; ++i) {
        const int e = mixture.ids[n][i].item<int>();
        const BankSlot& slot = slots.bank().slot(part);
        if (!slot.has(e)) continue;
        want[n] +=
            mixture.weights[n][i].item<double>() * slot.expert_a(e).t().mv(slot.expert_b(e).sum(0)).to(at::kDouble);
      }
    }
  }
  (with[0].sum() + with[1].sum() + with[2].sum()).backward();
  EXPECT_LT(largest_difference(leaf.grad(), want), 1e-3);  // sums of 120 outputs
}

TEST(RoutingRecord, SharesAddUpOverSlotsAndCalls) {
  RoutingRecord record(3, 3);
  record.mixtures[0].push_back({at::tensor({0, 2}, at::kInt).view({1, 2}), at::tensor({0.75F, 0.25F}).view({1, 2})});
  record.mixtures[0].push_back({at::tensor({1, 0}, at::kInt).view({1, 2}), at::tensor({1.0F, 0.0F}).view({1, 2})});
  record.mixtures[2].push_back({at::tensor({2, 2}, at::kInt).view({2, 1}), at::tensor({1.0F, 1.0F}).view({2, 1})});
  EXPECT_TRUE(at::allclose(expert_shares(record), at::tensor({0.1875, 0.25, 0.5625}, at::kDouble)));
  const at::Tensor by_slot = expert_shares_by_slot(record);
  EXPECT_TRUE(at::allclose(by_slot[0], at::tensor({0.375, 0.5, 0.125}, at::kDouble)));
  EXPECT_EQ(by_slot[1].abs().sum().item<double>(), 0);
  EXPECT_EQ(by_slot[2][2].item<double>(), 1);
  EXPECT_EQ(expert_shares(RoutingRecord(3, 3)).sum().item<double>(), 0);
}

}  // namespace
}  // namespace skein
