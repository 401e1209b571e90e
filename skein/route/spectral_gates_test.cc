#include "skein/route/spectral_gates.h"

#include <cmath>
#include <random>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "skein/experts/random_experts.h"

namespace skein {
namespace {

const std::vector<SlotName> kSlots{slot_named("m.q_proj", 30, 22), slot_named("m.down_proj", 12, 40)};

LoraAdapter adapter_of(std::int64_t rank, std::uint64_t seed = 1) {
  std::mt19937_64 generator(seed);
  return random_adapter(kSlots, {rank, rank}, generator);
}

// The dense product s B A in f64: (D_out, D_in).
at::Tensor dense(const LoraTensors& module) {
  const SlotName& slot = kSlots[module.slot_idx];
  return module.scale * at::tensor(module.b)
                            .view({slot.d_out, module.rank})
                            .to(at::kDouble)
                            .matmul(at::tensor(module.a).view({module.rank, slot.d_in}).to(at::kDouble));
}

at::Tensor directions_of(const GateTensors& gate) {
  return at::tensor(gate.directions).view({gate.num_directions, -1}).to(at::kDouble);
}

TEST(ArrowGate, IsTheFirstRightSingularVectorOfTheDenseProduct) {
  for (const std::int64_t rank : {1, 4, 12, 16}) {  // 16: more than down_proj has inputs
    const LoraAdapter adapter = adapter_of(rank);
    const GateFile gate = arrow_gate(adapter, kSlots);
    EXPECT_EQ(gate.kind, "arrow");
    for (std::size_t i = 0; i < 2; ++i) {
      const auto [u, sigma, vh] = at::linalg_svd(dense(adapter.modules[i]));
      const at::Tensor got = directions_of(gate.modules[i])[0];
      EXPECT_NEAR(got.norm().item<double>(), 1, 1e-6);
      EXPECT_NEAR(std::fabs(got.dot(vh[0]).item<double>()), 1, 1e-6) << rank;
    }
  }
}

TEST(ArrowGate, ThePowerIterationFindsItToo) {
  const LoraAdapter adapter = adapter_of(4);
  const GateFile exact = arrow_gate(adapter, kSlots);
  const GateFile iterated = arrow_gate(adapter, kSlots, {.by_power_iteration = true, .steps = 300, .seed = 3});
  const GateFile short_run = arrow_gate(adapter, kSlots, {.by_power_iteration = true, .steps = 1, .seed = 3});
  for (std::size_t i = 0; i < 2; ++i) {
    const at::Tensor want = directions_of(exact.modules[i])[0];
    EXPECT_NEAR(std::fabs(want.dot(directions_of(iterated.modules[i])[0]).item<double>()), 1, 1e-5);
    EXPECT_LT(std::fabs(want.dot(directions_of(short_run.modules[i])[0]).item<double>()), 0.9999);
  }
}

TEST(SpectrGate, ItsScoreIsTheSizeOfTheExpertsContribution) {
  const LoraAdapter adapter = adapter_of(5);
  const GateFile gate = spectr_gate(adapter, kSlots);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(gate.modules[i].num_directions, 5);
    for (int n = 0; n < 5; ++n) {
      const at::Tensor x = at::randn({kSlots[i].d_in}, at::kDouble);
      const double want = dense(adapter.modules[i]).mv(x).norm().item<double>();
      EXPECT_NEAR(directions_of(gate.modules[i]).mv(x).norm().item<double>(), want, 1e-5 * want);
    }
  }
}

TEST(SpectrGate, OneDirectionWithoutItsValueIsArrows) {
  const LoraAdapter adapter = adapter_of(5);
  const GateFile one = spectr_gate(adapter, kSlots, {.directions = 1, .power = 0});
  const GateFile arrow = arrow_gate(adapter, kSlots);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(one.modules[i].num_directions, 1);
    EXPECT_TRUE(at::allclose(directions_of(one.modules[i]), directions_of(arrow.modules[i])));
  }
  // Kept directions are orthonormal where no value is folded in (SMILE).
  const at::Tensor three = directions_of(spectr_gate(adapter, kSlots, {.directions = 3, .power = 0}).modules[0]);
  EXPECT_TRUE(at::allclose(three.matmul(three.t()), at::eye(3, at::kDouble), 1e-5, 1e-6));
}

}  // namespace
}  // namespace skein
