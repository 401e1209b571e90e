#include "skein/experts/bank.h"

#include <limits>
#include <random>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/experts/random_experts.h"
#include "skein/nn/bridge.h"

namespace skein {
namespace {

const std::vector<SlotName> kSlots{slot_named("m.q_proj", 33, 70), slot_named("m.o_proj", 70, 33)};

ComputeOptions in(c10::ScalarType dtype) { return ComputeOptions{.dtype = dtype}; }

TEST(ExpertBank, GivesBackWhatItWasBuiltFrom) {
  std::mt19937_64 generator(1);
  const std::vector<LoraAdapter> adapters{random_adapter(kSlots, {5, 16}, generator),
                                          random_adapter(kSlots, {0, 20}, generator)};
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const ExpertBank bank(adapters, {"first", "second"}, kSlots, in(dtype));
    for (int e = 0; e < 2; ++e) {
      for (const LoraTensors& module : adapters[e].modules) {
        const SlotName& slot = kSlots[module.slot_idx];
        const at::Tensor a = tensor_of(module.a, {module.rank, slot.d_in}).to(dtype);
        const at::Tensor b = tensor_of(module.b, {slot.d_out, module.rank}).mul_(0.5).to(dtype);  // the scale
        EXPECT_TRUE(at::equal(bank.slot(module.slot_idx).expert_a(e), a)) << e << " " << slot.module;
        EXPECT_TRUE(at::equal(bank.slot(module.slot_idx).expert_b(e), b)) << e << " " << slot.module;
      }
    }
    EXPECT_FALSE(bank.slot(0).has(1));
    EXPECT_EQ(bank.slot(0).expert_a(1).size(0), 0);
    EXPECT_EQ(bank.slot(1).max_rank(), 20);
    EXPECT_EQ(bank.num_parameters(), (5 + 16 + 20) * (33 + 70));
    const BankSlot::Stacked stacked = bank.slot(1).stacked();
    EXPECT_TRUE(at::equal(stacked.a, at::cat({bank.slot(1).expert_a(0), bank.slot(1).expert_a(1)})));
    EXPECT_EQ(stacked.owner.sum().item<std::int64_t>(), 20);
  }
}

TEST(ExpertBank, KnowsWhetherItIsFinite) {
  std::mt19937_64 generator(2);
  std::vector<LoraAdapter> adapters{random_adapter(kSlots, {4, 4}, generator)};
  adapters[0].modules[1].b[3] = std::numeric_limits<float>::quiet_NaN();
  const ExpertBank bank(adapters, {"first"}, kSlots, in(at::kFloat));
  EXPECT_TRUE(bank.slot(0).finite());
  EXPECT_FALSE(bank.slot(1).finite());
}

TEST(ExpertBank, NamesTheExpertAndModuleOfAnotherShape) {
  std::mt19937_64 generator(3);
  std::vector<LoraAdapter> adapters{random_adapter(kSlots, {4, 4}, generator)};
  adapters[0].modules[1].a.pop_back();
  try {
    const ExpertBank bank(adapters, {"poet"}, kSlots, in(at::kFloat));
    FAIL() << "accepted";
  } catch (const Failure& failure) {
    EXPECT_THAT(failure.what(), ::testing::AllOf(::testing::HasSubstr("poet"), ::testing::HasSubstr("m.o_proj"),
                                                 ::testing::HasSubstr("279"), ::testing::HasSubstr("280")));
  }
}

}  // namespace
}  // namespace skein
