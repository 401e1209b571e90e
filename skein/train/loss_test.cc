#include "skein/train/loss.h"

#include <cmath>

#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

namespace skein {
namespace {

// Only an output head: what target_loss sees of a model. Counts its rows.
class HeadOnly : public Backbone {
 public:
  HeadOnly(at::Tensor weight, double scale)
      : Backbone(BackboneConfig{}, ComputeOptions{.dtype = weight.scalar_type()}),
        weight_(std::move(weight)),
        scale_(scale) {}
  at::Tensor forward(const PackedBatch&, const EncodedSource*, ForwardState&) const override { return {}; }
  at::Tensor logits(const at::Tensor& hidden) const override {
    most_rows_ = std::max(most_rows_, hidden.size(0));
    return at::matmul(hidden, weight_.t()) * scale_;
  }
  mutable std::int64_t most_rows_ = 0;

 private:
  at::Tensor weight_;  // (V, D)
  double scale_;
};

struct Case {
  at::Tensor hidden = at::randn({23, 12});
  at::Tensor targets = at::randint(0, 50, {23}, at::kLong);
  at::Tensor weights = at::rand({23});
  at::Tensor head = at::randn({50, 12});
};

// The whole at once, in f64, by autograd.
std::pair<at::Tensor, at::Tensor> reference(const Case& given, double scale) {
  const at::AutoGradMode record(true);
  const at::Tensor hidden = given.hidden.to(at::kDouble).requires_grad_(true);
  const at::Tensor logits = at::matmul(hidden, given.head.to(at::kDouble).t()) * scale;
  const at::Tensor losses = -at::log_softmax(logits, 1).gather(1, given.targets.unsqueeze(1)).squeeze(1);
  (losses * given.weights.to(at::kDouble)).sum().backward();
  return {losses.detach(), hidden.grad()};
}

TEST(TargetLoss, EqualsAutogradOfTheWholeWhateverTheChunk) {
  at::manual_seed(1);
  const Case given;
  const auto [losses, gradient] = reference(given, 0.7);
  for (const std::int64_t chunk_rows : {1, 5, 23, 64}) {
    const HeadOnly head(given.head, 0.7);
    const TargetLoss result = target_loss(head, given.hidden, given.targets, given.weights, chunk_rows);
    // f32 sums of 12 products and of 50 exponentials, values of order 10: 1e-5 leaves a factor of 10.
    EXPECT_LE((result.row_losses - losses).abs().max().item<double>(), 1e-5) << chunk_rows;
    EXPECT_LE((result.hidden_gradient - gradient).abs().max().item<double>(), 1e-5) << chunk_rows;
    EXPECT_LE(head.most_rows_, chunk_rows);
  }
}

TEST(TargetLoss, WithoutWeightsComputesNoGradient) {
  at::manual_seed(2);
  const Case given;
  const HeadOnly head(given.head, 1);
  const TargetLoss result = target_loss(head, given.hidden, given.targets, std::nullopt);
  EXPECT_FALSE(result.hidden_gradient.defined());
  EXPECT_LE((result.row_losses - reference(given, 1).first).abs().max().item<double>(), 1e-5);
}

TEST(TargetLoss, SumsBf16LogitsInF32) {
  // 4,096 equal logits: the loss is log 4096 exactly if the sum is f32; a bf16 sum stops at 256.
  const HeadOnly head(at::zeros({4096, 12}, at::kBFloat16), 1);
  const at::Tensor hidden = at::ones({3, 12}, at::kBFloat16), targets = at::zeros({3}, at::kLong);
  const TargetLoss result = target_loss(head, hidden, targets, at::ones({3}));
  EXPECT_EQ(result.row_losses.scalar_type(), at::kFloat);
  EXPECT_EQ(result.hidden_gradient.scalar_type(), at::kBFloat16);
  for (int row = 0; row < 3; ++row) EXPECT_NEAR(result.row_losses[row].item<double>(), std::log(4096.0), 1e-5);
}

}  // namespace
}  // namespace skein
