// Gradients of one training step of an expert and of its gate: against PyTorch's autograd (tools/goldens) and against
// finite differences.
#include <gtest/gtest.h>

#include "skein/base/concat.h"
#include "skein/nn/bridge.h"
#include "skein/train/loss.h"
#include "skein/train/target_batch.h"
#include "tests/agreement/experts.h"
#include "tests/agreement/golden.h"

namespace skein::agreement {
namespace {

// The examples that the golden's loss is of: the last tokens of sequences 2 and 3 are targets.
TrainData examples() {
  const std::vector<Sequence> sequences = sequences_of(Golden("llama"));
  TrainData data;
  for (const auto& [idx, num_targets] : {std::pair{2, 3}, std::pair{3, 10}}) {
    const std::vector<std::int32_t>& tokens = sequences[idx].tokens;
    EncodedExample example;
    example.input.assign(tokens.begin(), tokens.end() - num_targets);
    example.target.assign(tokens.end() - num_targets, tokens.end());
    data.examples.push_back(example);
    data.ids.push_back(concat("sequence ", idx));
  }
  return data;
}

struct Step {
  double loss = 0;
  std::vector<at::Tensor> gradients;  // one per parameter; empty if not asked
};

// Mean loss over all target tokens, computed as the trainer does.
Step run_step(const Backbone& backbone, const SlotFiller& filler, const std::vector<at::Tensor>& parameters,
              bool want_gradients) {
  const TrainData data = examples();
  const std::vector<std::int64_t> all = {0, 1};
  const TargetBatch batch = make_target_batch(data, all, backbone);
  const at::Tensor weights = row_weights(batch.target_lengths, LossMean::kToken,
                                         {.sequences = 2, .microbatches = 1, .target_tokens = batch.targets.size(0)});
  const at::AutoGradMode gradients(want_gradients);
  const at::Tensor hidden = target_hidden(backbone, batch, &filler);
  const TargetLoss loss = target_loss(backbone, hidden, batch.targets, weights);
  Step step;
  step.loss = (loss.row_losses.to(at::kDouble) * weights.to(at::kDouble)).sum().item<double>();
  if (want_gradients) {
    for (const at::Tensor& parameter : parameters) parameter.mutable_grad() = at::Tensor();
    hidden.backward(loss.hidden_gradient);
    for (const at::Tensor& parameter : parameters) step.gradients.push_back(parameter.grad());
  }
  return step;
}

void expect_gradients(const Golden& golden, const std::string& kind, const Step& step,
                      const std::vector<std::string>& names) {
  EXPECT_NEAR(step.loss, golden.scalar(kind + ".loss"), kOtherOrder * golden.scalar(kind + ".error_loss") + 1e-6);
  ASSERT_EQ(names.size(), golden.names_after(kind + ".model.").size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    const at::Tensor expected = golden.floats(concat(kind, ".", names[i]));
    const double scale = expected.abs().max().item<double>();
    expect_close(step.gradients[i], expected, kOtherOrder * golden.scalar(kind + ".error_relative") * scale, names[i]);
  }
}

// Central difference along the gradient: (f(p + h g) - f(p - h g)) / 2h = |g|^2 + O(h^2). The loss, some 5, carries f32
// rounding of about 1e-6; the step changes it by 1e-2, and the cubic term is as small beside it.
void expect_finite_difference(const Backbone& backbone, const SlotFiller& filler,
                              const std::vector<at::Tensor>& parameters, const Step& step) {
  double squared = 0;
  for (const at::Tensor& g : step.gradients) squared += g.to(at::kDouble).square().sum().item<double>();
  const double h = 5e-3 / squared;
  const auto loss_at = [&](double offset) {
    const at::NoGradGuard no_gradients;
    for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i].add_(step.gradients[i], offset);
    const double loss = run_step(backbone, filler, parameters, false).loss;
    for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i].sub_(step.gradients[i], offset);
    return loss;
  };
  const double slope = (loss_at(h) - loss_at(-h)) / (2 * h);
  EXPECT_NEAR(slope / squared, 1, 2e-3);
}

TEST(Gradients, OfAnExpertEqualAutogradAndFiniteDifferences) {
  const auto backbone = load_tiny("llama");
  const LoraAdapter adapter = read_expert("llama_1", backbone->slots());
  LoraInit init;
  init.rank = adapter.config.rank;
  init.alpha = adapter.config.alpha;
  TrainableLora lora(backbone->slots(), init, at::kCPU);
  const std::vector<at::Tensor> parameters = lora.parameters();
  ASSERT_EQ(parameters.size(), 2 * adapter.modules.size());
  {
    const at::NoGradGuard no_gradients;
    for (std::size_t i = 0; i < adapter.modules.size(); ++i) {
      parameters[2 * i].copy_(tensor_of(adapter.modules[i].a, Shape(parameters[2 * i].sizes().vec())));
      parameters[2 * i + 1].copy_(tensor_of(adapter.modules[i].b, Shape(parameters[2 * i + 1].sizes().vec())));
    }
  }
  const Step step = run_step(*backbone, lora, parameters, true);
  expect_gradients(Golden("gradients_llama"), "lora", step, lora.parameter_names());
  expect_finite_difference(*backbone, lora, parameters, step);
}

TEST(Gradients, OfAGateAtItsFirstStepEqualAutograd) {
  const auto backbone = load_tiny("llama");
  GatedLora gated(read_expert("llama_1", backbone->slots()), backbone->slots(), backbone->compute());
  const Step step = run_step(*backbone, gated, gated.parameters(), true);
  expect_gradients(Golden("gradients_llama"), "gate_zero", step, gated.parameter_names());
  expect_finite_difference(*backbone, gated, gated.parameters(), step);
}

TEST(Gradients, OfATrainedGateEqualAutograd) {
  const auto backbone = load_tiny("llama");
  GatedLora gated(read_expert("llama_1", backbone->slots()), backbone->slots(), backbone->compute());
  set_gates(gated, "llama_1");
  const Step step = run_step(*backbone, gated, gated.parameters(), true);
  expect_gradients(Golden("gradients_llama"), "gate", step, gated.parameter_names());
  expect_finite_difference(*backbone, gated, gated.parameters(), step);
}

}  // namespace
}  // namespace skein::agreement
