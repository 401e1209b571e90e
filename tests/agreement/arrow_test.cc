// Arrow and GenKnowSub against PEFT (tools/goldens/routers.py): prototypes of the power iteration, and logits.
#include <gtest/gtest.h>

#include "skein/base/concat.h"
#include "skein/experts/combine.h"
#include "skein/route/spectral_gates.h"
#include "tests/agreement/experts.h"
#include "tests/agreement/golden.h"

namespace skein::agreement {
namespace {

const std::vector<std::string> kTasks = {"llama_task_0", "llama_task_1", "llama_task_2"};
const std::vector<std::string> kGeneral = {"llama_general_0", "llama_general_1"};
const ArrowOptions kPeft{.by_power_iteration = true, .steps = 15, .seed = 7};

struct Variant {
  std::string name;
  int top_k;
  double temperature;
  bool subtracts;
};

std::vector<LoraAdapter> pool_of(const Variant& variant, const std::vector<SlotName>& slots) {
  std::vector<LoraAdapter> adapters, general;
  for (const std::string& name : kTasks) adapters.push_back(read_expert(name, slots));
  if (!variant.subtracts) return adapters;
  std::vector<const LoraAdapter*> pointers;
  for (const std::string& name : kGeneral) general.push_back(read_expert(name, slots));
  for (const LoraAdapter& adapter : general) pointers.push_back(&adapter);
  for (LoraAdapter& adapter : adapters) adapter = without_general(adapter, pointers, slots);
  return adapters;
}

class Arrow : public testing::TestWithParam<Variant> {};

TEST_P(Arrow, EqualsPeft) {
  const Golden golden(concat("arrow_", GetParam().name));
  const auto backbone = load_tiny("llama");
  const auto& slots = backbone->slots();
  const std::vector<LoraAdapter> adapters = pool_of(GetParam(), slots);
  std::vector<GateFile> gates;
  for (const LoraAdapter& adapter : adapters) gates.push_back(arrow_gate(adapter, slots, kPeft));

  const auto modules = golden.names_after("prototypes.");
  ASSERT_EQ(modules.size(), adapters[0].modules.size());
  for (std::size_t i = 0; i < adapters[0].modules.size(); ++i) {
    const SlotName& slot = slots[adapters[0].modules[i].slot_idx];
    const at::Tensor want = golden.floats(concat("prototypes.", slot.module));  // (E, D_in)
    for (std::size_t e = 0; e < adapters.size(); ++e) {
      // The same steps in f32 from the same start, other orders of sums: a few units of 2^-24 a step, and each step
      // shrinks what does not point along the direction.
      expect_close(at::tensor(gates[e].modules[i].directions), want[e], 2e-5, slot.module);
    }
  }

  RouterOptions options = default_router("arrow");
  options.top_k = GetParam().top_k;
  options.temperature = GetParam().temperature;
  auto bank = std::make_shared<const ExpertBank>(adapters, kTasks, slots, backbone->compute());
  auto router = make_router(options, *bank, gates, backbone->compute());
  const RoutedSlots routed(std::move(bank), std::move(router));
  ForwardState state{&routed, nullptr};
  const std::vector<at::Tensor> logits = batched_logits(*backbone, sequences_of(Golden("llama")), state);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    expect_close(logits[i], golden.floats(concat("logits.", i)), golden.bound(at::kFloat), concat("sequence ", i));
  }
}

INSTANTIATE_TEST_SUITE_P(Peft, Arrow,
                         testing::Values(Variant{"k2", 2, 1.5, false}, Variant{"k3", 3, 0.7, false},
                                         Variant{"gks_k2", 2, 1.5, true}),
                         [](const auto& variant) { return variant.param.name; });

}  // namespace
}  // namespace skein::agreement
