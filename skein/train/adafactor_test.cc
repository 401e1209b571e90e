#include "skein/train/adafactor.h"

#include <gtest/gtest.h>

#include "skein/io/safetensors.h"
#include "skein/nn/bridge.h"
#include "skein/train/tiny_training.h"

namespace skein {
namespace {

struct Steps {
  const char* name;
  bool scale_parameter, relative_step;
  double weight_decay = 0, decay = 0.8, threshold = 1;
};

class AdafactorSteps : public testing::TestWithParam<Steps> {};

TEST_P(AdafactorSteps, AreThoseOfTransformers) {
  const auto golden = or_throw(open_safetensors(real_env(), tiny::golden_path("train/adafactor.safetensors")));
  const Steps& param = GetParam();
  const auto load = [&](const std::string& what, int step, int idx) {
    return load_tensor(*golden, concat(param.name, ".", what, ".", step, ".", idx), {});
  };
  TrainOptions options;
  options.scale_parameter = param.scale_parameter;
  options.relative_step = param.relative_step;
  options.weight_decay = param.weight_decay;
  options.adafactor_decay = param.decay;
  options.adafactor_threshold = param.threshold;
  std::vector<at::Tensor> parameters;
  for (int idx = 0; idx < 3; ++idx) parameters.push_back(load("parameter", 0, idx).requires_grad_(true));
  Adafactor optimiser(parameters, options);
  const std::vector<double> rates{0.01, 0.02, 0.0, 0.02, 0.005};  // as in make_train_goldens.py
  for (int step = 1; step <= 5; ++step) {
    std::vector<at::Tensor> gradients;
    for (int idx = 0; idx < 3; ++idx) gradients.push_back(load("gradient", step, idx));
    optimiser.step(gradients, rates[step - 1]);
    for (int idx = 0; idx < 3; ++idx) {
      // Both compute in f32 with the same operations; norms and means may add in another order: a few ulp of values up
      // to 4.
      EXPECT_LE((parameters[idx] - load("parameter", step, idx)).abs().max().item<double>(), 1e-6)
          << "tensor " << idx << " after update " << step;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, AdafactorSteps,
                         testing::Values(Steps{"plain", false, false}, Steps{"scaled", true, false, 0.1},
                                         Steps{"relative", true, true}, Steps{"slow_decay", false, false, 0, 0.5, 0.3}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Adafactor, WithoutFactorsKeepsOneMomentPerNumber) {
  TrainOptions options;
  options.factored = false;
  const at::Tensor parameter = at::ones({3, 5}).requires_grad_(true);
  const Adafactor whole({parameter}, options);
  ASSERT_EQ(whole.state({"p"}).size(), 1U);
  EXPECT_EQ(whole.state({"p"})[0].tensor.numel(), 15);
  options.factored = true;
  const Adafactor factored({parameter}, options);
  ASSERT_EQ(factored.state({"p"}).size(), 2U);
  EXPECT_EQ(factored.state({"p"})[0].tensor.numel() + factored.state({"p"})[1].tensor.numel(), 8);
}

// In the very first update b = 0: V = g^2, so every number moves by the rate in its gradient's direction.
TEST(Adafactor, TheFirstUnfactoredUpdateIsTheSign) {
  TrainOptions options;
  options.factored = false;
  const at::Tensor parameter = at::zeros({4}).requires_grad_(true);
  Adafactor optimiser({parameter}, options);
  optimiser.step({at::tensor({2.0F, -3.0F, 0.5F, -1e-3F})}, 0.1);
  EXPECT_LE((parameter - at::tensor({-0.1F, 0.1F, -0.1F, 0.1F})).abs().max().item<double>(), 1e-6);
}

TEST(Adafactor, GoesOnFromCopiedStateAsIfUnbroken) {
  const TrainOptions options;
  const auto gradient = [](int step) { return at::full({3, 2}, 0.1 * (step + 1)); };
  at::Tensor unbroken = at::ones({3, 2}).requires_grad_(true), broken = at::ones({3, 2}).requires_grad_(true);
  Adafactor first({unbroken}, options), before({broken}, options), after({broken}, options);
  for (int step = 0; step < 4; ++step) first.step({gradient(step)}, 0.1);
  for (int step = 0; step < 2; ++step) before.step({gradient(step)}, 0.1);
  const auto from = before.state({"p"}), to = after.state({"p"});
  for (std::size_t i = 0; i < to.size(); ++i) to[i].tensor.copy_(from[i].tensor);
  after.set_updates(before.updates());
  for (int step = 2; step < 4; ++step) after.step({gradient(step)}, 0.1);
  EXPECT_TRUE(unbroken.equal(broken));
}

}  // namespace
}  // namespace skein
