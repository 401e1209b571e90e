#include "skein/route/mean_inputs.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "skein/nn/packed_batch.h"

namespace skein {
namespace {

struct Plain : SlotFiller {
  std::vector<at::Tensor> forward(const LinearGroup& group, const at::Tensor& x, ForwardState&) const override {
    return apply_frozen(group, x);
  }
};

TEST(MeanInputs, EveryExampleCountsAlikeWhateverItsLength) {
  const Plain plain;
  const MeanInputs means(plain, 2);
  const LinearGroup group = make_linear_group({at::eye(3)}, {{}}, {1});
  const at::Tensor x = at::tensor({1.0F, 0.0F, 0.0F, 3.0F, 0.0F, 0.0F, 0.0F, 6.0F, 0.0F}).view({3, 3});
  ForwardState state;
  state.rows =
      std::make_shared<const SequenceRows>(SequenceRows{{{.begin = 0, .length = 2}, {.begin = 2, .length = 1}}});
  EXPECT_TRUE(at::equal(means.forward(group, x, state)[0], x));  // passed on
  state.rows = nullptr;
  means.forward(group, at::tensor({0.0F, 0.0F, 9.0F}).view({1, 3}), state);
  LoraAdapter adapter;
  adapter.modules.push_back({.slot_idx = 1, .rank = 1});
  const GateFile gate = means.to_gate(adapter);
  EXPECT_EQ(gate.kind, "average-activation");
  ASSERT_EQ(gate.modules.size(), 1u);
  for (int i = 0; i < 3; ++i) EXPECT_FLOAT_EQ(gate.modules[0].directions[i], std::vector<float>({2.0F / 3, 2, 3})[i]);
  adapter.modules[0].slot_idx = 0;
  EXPECT_THROW(means.to_gate(adapter), Failure);
}

}  // namespace
}  // namespace skein
