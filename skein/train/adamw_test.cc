#include "skein/train/adamw.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "skein/io/safetensors.h"
#include "skein/nn/bridge.h"
#include "skein/train/tiny_training.h"

namespace skein {
namespace {

TEST(AdamW, TakesTheStepsOfTorchOptim) {
  const auto golden = or_throw(open_safetensors(real_env(), tiny::golden_path("train/adamw.safetensors")));
  const auto load = [&](const std::string& name) { return load_tensor(*golden, name, {}); };
  TrainOptions options;
  options.beta1 = 0.9;
  options.beta2 = 0.99;
  options.adam_eps = 1e-6;
  options.weight_decay = 0.1;
  at::Tensor parameter = load("parameter.0").requires_grad_(true);
  AdamW optimiser({parameter}, options);
  const std::vector<double> rates{0.0, 0.01, 0.02, 0.005, 0.02};  // as in make_train_goldens.py
  for (std::size_t step = 1; step <= rates.size(); ++step) {
    optimiser.step({load(concat("gradient.", step))}, rates[step - 1]);
    const double difference = (parameter - load(concat("parameter.", step))).abs().max().item<double>();
    // Both compute in f32, in another order: a few roundings of values up to 4 (ulp 2.4e-7 at most).
    EXPECT_LE(difference, 1e-6) << "after update " << step;
  }
  EXPECT_EQ(optimiser.updates(), 5);
}

TEST(AdamW, GoesOnFromRestoredMomentsAsIfUnbroken) {
  const TrainOptions options;
  const auto gradient = [](int step) { return at::full({7}, 0.1 * (step + 1)); };
  const auto fresh = [] { return at::ones({7}).requires_grad_(true); };
  at::Tensor unbroken = fresh(), broken = fresh();
  AdamW first({unbroken}, options), before({broken}, options), after({broken}, options);
  for (int step = 0; step < 4; ++step) first.step({gradient(step)}, 0.1);
  for (int step = 0; step < 2; ++step) before.step({gradient(step)}, 0.1);
  const auto from = before.state({"p"}), to = after.state({"p"});
  for (std::size_t i = 0; i < to.size(); ++i) to[i].tensor.copy_(from[i].tensor);
  after.set_updates(before.updates());
  for (int step = 2; step < 4; ++step) after.step({gradient(step)}, 0.1);
  EXPECT_TRUE(unbroken.equal(broken));
}

TEST(ClipByGlobalNorm, ScalesAllGradientsByOneFactor) {
  // Norm of (3, 0) and (0, 4) together: 5.
  const std::vector<at::Tensor> gradients{at::tensor({3.0F, 0.0F}), at::tensor({0.0F, 4.0F})};
  EXPECT_NEAR(clip_by_global_norm(gradients, 1.0), 5.0, 1e-6);
  EXPECT_NEAR(gradients[0][0].item<double>(), 3.0 / (5.0 + 1e-6), 1e-6);
  EXPECT_NEAR(gradients[1][1].item<double>(), 4.0 / (5.0 + 1e-6), 1e-6);
}

TEST(ClipByGlobalNorm, LeavesSmallGradientsAndTurnedOffClippingAlone) {
  const std::vector<at::Tensor> gradients{at::tensor({3.0F, 4.0F})};
  EXPECT_NEAR(clip_by_global_norm(gradients, 6.0), 5.0, 1e-6);
  EXPECT_NEAR(clip_by_global_norm(gradients, 0.0), 5.0, 1e-6);
  EXPECT_EQ(gradients[0][0].item<double>(), 3.0);
}

TEST(ClipByGlobalNorm, ReportsANanWithoutSpreadingIt) {
  const std::vector<at::Tensor> gradients{at::tensor({std::numeric_limits<float>::quiet_NaN()}), at::tensor({4.0F})};
  EXPECT_TRUE(std::isnan(clip_by_global_norm(gradients, 1.0)));
  EXPECT_EQ(gradients[1].item<double>(), 4.0);
}

}  // namespace
}  // namespace skein
