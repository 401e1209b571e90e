// One LoRA expert against PEFT, and folded into the weights.
#include <cmath>

#include <gtest/gtest.h>

#include "skein/base/concat.h"
#include "skein/nn/bridge.h"
#include "skein/nn/slot.h"
#include "tests/agreement/experts.h"
#include "tests/agreement/golden.h"

namespace skein::agreement {
namespace {

class PeftExpert : public testing::TestWithParam<const char*> {};

TEST_P(PeftExpert, LogitsEqualPeft) {
  const std::string name = GetParam();
  const std::string model = base_of(name);
  const Golden golden(concat("lora_", name));
  const std::vector<Sequence> sequences = sequences_of(Golden(model));
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto backbone = load_tiny(model, dtype);
    const auto filler = make_filler({name}, *backbone, single_expert(name));
    ForwardState state{filler.get(), nullptr};
    const std::vector<at::Tensor> logits = batched_logits(*backbone, sequences, state);
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      expect_close(logits[i], golden.floats(concat("logits.", i)), golden.bound(dtype),
                   concat("sequence ", i, dtype == at::kFloat ? " f32" : " bf16"));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Pool, PeftExpert,
                         testing::Values("llama_0", "llama_1", "llama_2", "llama_3", "llama_4", "t5_0", "t5_1", "t5_2"),
                         [](const auto& expert) { return std::string(expert.param); });

// (W + s B A) x against W x + s B (A x), both in f32. With u = 2^-24, a sum of n products in any order is within n u of
// the sum of their absolute values (Higham, Accuracy and Stability, section 3.1): D_in products for W x, D_in then R
// for the update, a few roundings for scale, addition and the folded weight.
TEST(MergedExpert, WeightGivesTheForwardOfTheAdapter) {
  const auto backbone = load_tiny("llama");
  const std::vector<SlotName>& slots = backbone->slots();
  const LoraAdapter adapter = read_expert("llama_3", slots);
  const auto weights = or_throw(open_base_model(real_env(), concat(golden_folder(), "/models/llama")));
  const auto filler = make_filler({"llama_3"}, *backbone, single_expert("llama_3"));
  at::manual_seed(3);
  for (const LoraTensors& module : adapter.modules) {
    const SlotName& slot = slots[module.slot_idx];
    const at::Tensor weight = load_tensor(*weights.weights, slot.module + ".weight", ComputeOptions{});
    const at::Tensor a = tensor_of(module.a, {module.rank, slot.d_in});
    const at::Tensor b = tensor_of(module.b, {slot.d_out, module.rank});
    const at::Tensor merged =
        (weight.to(at::kDouble) + module.scale * b.to(at::kDouble).matmul(a.to(at::kDouble))).to(at::kFloat);

    const at::Tensor x = at::randn({5, slot.d_in});
    const at::NoGradGuard no_gradients;
    ForwardState state{filler.get(), nullptr};
    const at::Tensor routed = apply_slots(make_linear_group({weight}, {{}}, {module.slot_idx}), x, state)[0];

    const at::Tensor magnitude =
        x.abs().matmul(weight.abs().t()) + std::abs(module.scale) * x.abs().matmul(a.abs().t()).matmul(b.abs().t());
    const double roundings = static_cast<double>(2 * slot.d_in + module.rank + 4);
    const at::Tensor bound = roundings * std::ldexp(1.0, -24) * magnitude;
    EXPECT_TRUE(((routed - x.matmul(merged.t())).abs() <= bound).all().item<bool>()) << slot.module;
    // Not vacuous: without the adapter the difference is far outside the bound.
    EXPECT_FALSE(((routed - x.matmul(weight.t())).abs() <= bound).all().item<bool>()) << slot.module;
  }
}

}  // namespace
}  // namespace skein::agreement
