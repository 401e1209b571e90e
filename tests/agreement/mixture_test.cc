// MoV and MoLoRA against a reference written from the formulas (tools/goldens/make_mixture_goldens.py): losses, logits,
// gradients and the additional losses, each routing mode, decoder-only and T5.
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "skein/base/concat.h"
#include "skein/experts/mixture_slots.h"
#include "skein/nn/bridge.h"
#include "skein/train/loss.h"
#include "skein/train/target_batch.h"
#include "tests/agreement/golden.h"

namespace skein::agreement {
namespace {

constexpr double kBalance = 0.7, kZLoss = 0.05;  // of the goldens' cases with additional losses

struct MixtureCase {
  const char* file;  // mixture_FILE.safetensors
  const char* name;  // of the case in it
  const char* model;
  MixtureConfig config;
  bool has_losses = false;
};

MixtureConfig mov(RouterInput input, int top_k = 0, bool renormalises = false) {
  return {
      .kind = MixtureKind::kMov, .num_experts = 3, .top_k = top_k, .renormalises = renormalises, .router_input = input};
}
MixtureConfig molora(int top_k = 0, bool renormalises = false, Mixes mixes = Mixes::kOutputs,
                     RouterInput input = RouterInput::kHidden) {
  return {.kind = MixtureKind::kMolora,
          .num_experts = 3,
          .rank = 2,
          .alpha = 16,
          .top_k = top_k,
          .renormalises = renormalises,
          .router_input = input,
          .mixes = mixes};
}

const std::vector<MixtureCase>& cases() {
  using enum RouterInput;
  static const std::vector<MixtureCase> kCases = {
      {"mov_llama_projected", "soft", "llama", mov(kProjected)},
      {"mov_llama_projected", "top1", "llama", mov(kProjected, 1)},
      {"mov_llama_projected", "top2", "llama", mov(kProjected, 2)},
      {"mov_llama_projected", "losses", "llama", mov(kProjected, 2), true},
      {"mov_llama_hidden", "soft", "llama", mov(kHidden)},
      {"mov_llama_hidden", "top2", "llama", mov(kHidden, 2, true)},
      {"mov_llama_sentence", "soft", "llama", mov(kSentence)},
      {"mov_llama_sentence", "top1", "llama", mov(kSentence, 1)},
      {"mov_t5_v11_projected", "soft", "t5_v11", mov(kProjected)},
      {"mov_t5_v11_projected", "top2", "t5_v11", mov(kProjected, 2)},
      {"mov_t5_v11_projected", "losses", "t5_v11", mov(kProjected, 1), true},
      {"mov_t5_v11_hidden", "soft", "t5_v11", mov(kHidden)},
      {"mov_t5_v10_projected", "soft", "t5_v10", mov(kProjected)},
      {"mov_t5_v10_hidden", "soft", "t5_v10", mov(kHidden)},
      {"molora_llama", "soft", "llama", molora()},
      {"molora_llama", "parameters", "llama", molora(0, false, Mixes::kParameters)},
      {"molora_llama", "top1", "llama", molora(1)},
      {"molora_llama", "top2", "llama", molora(2)},
      {"molora_llama", "top2_renormalised", "llama", molora(2, true)},
      {"molora_llama", "parameters_top2", "llama", molora(2, false, Mixes::kParameters)},
      {"molora_llama", "losses", "llama", molora(2), true},
      {"molora_llama_sentence", "soft", "llama", molora(0, false, Mixes::kOutputs, kSentence)},
      {"molora_t5_v11", "soft", "t5_v11", molora()},
      {"molora_t5_v11", "top2", "t5_v11", molora(2)},
      {"molora_t5_v11", "losses", "t5_v11", molora(2), true},
      {"molora_t5_v11_sentence", "soft", "t5_v11", molora(0, false, Mixes::kOutputs, kSentence)},
  };
  return kCases;
}

TrainData examples_of(const Golden& golden) {
  TrainData data;
  for (int i = 0; golden.has(concat("input.", i)); ++i) {
    data.examples.push_back({.input = golden.ids(concat("input.", i)), .target = golden.ids(concat("target.", i))});
    data.ids.push_back(std::to_string(i));
  }
  return data;
}

// The golden's experts and routers.
MixtureFile mixture_of(const Golden& golden, const MixtureConfig& config, const std::vector<SlotName>& slots) {
  MixtureFile file{.config = config};
  const auto numbers = [&](const std::string& name) {
    return golden.has(name) ? floats_of(golden.floats(name)) : std::vector<float>();
  };
  for (const int s : or_throw(mixture_slots(config, slots))) {
    const std::string name = "parameter." + slots[s].module;
    file.modules.push_back({s, numbers(name + ".experts.scaling"), numbers(name + ".experts.lora_A"),
                            numbers(name + ".experts.lora_B"), numbers(name + ".router.weight")});
  }
  return file;
}

class Mixtures : public testing::TestWithParam<MixtureCase> {
 protected:
  // The weighted losses of the golden's one step.
  static RouterLossWeights losses_of(const TrainData& data, bool wanted) {
    RouterLossWeights weights;
    if (!wanted) return weights;
    weights = {.balance = kBalance, .z_loss = kZLoss, .num_sequences = 0, .num_rows = 0, .num_source_rows = 0};
    for (const EncodedExample& example : data.examples) {
      weights.num_sequences += 1;
      weights.num_source_rows += static_cast<std::int64_t>(example.input.size());
    }
    return weights;
  }
};

TEST_P(Mixtures, LossesAndGradientsAreTheFormulas) {
  const MixtureCase& param = GetParam();
  const Golden golden(concat("mixture_", param.file));
  const auto backbone = load_tiny(param.model);
  const TrainData data = examples_of(golden);
  const MixtureFile file = mixture_of(golden, param.config, backbone->slots());
  for (const bool recomputes : {false, true}) {
    backbone->set_checkpoint_blocks(recomputes);
    MixtureSlots mixture(file, backbone->config(), backbone->compute(), MixtureSlots::Trains::kAll);
    const std::vector<std::int64_t> all = {0, 1};
    const TargetBatch batch = make_target_batch(data, all, *backbone);
    RouterLossWeights losses = losses_of(data, param.has_losses);
    losses.num_rows = batch.batch.num_tokens();
    if (param.has_losses) mixture.set_losses(losses);
    const at::Tensor weights = row_weights(batch.target_lengths, LossMean::kToken,
                                           {.sequences = 2, .microbatches = 1, .target_tokens = batch.targets.size(0)});
    auto record = std::make_shared<RouterRecord>(mixture.num_routers());
    const at::AutoGradMode gradients(true);
    const at::Tensor hidden = target_hidden(*backbone, batch, &mixture, record);
    const TargetLoss loss = target_loss(*backbone, hidden, batch.targets, weights);
    const std::string what = concat(param.file, " ", param.name, recomputes ? ", recomputed" : "");
    const auto scalar = [&](const std::string& name) { return golden.scalar(concat(param.name, ".", name)); };
    EXPECT_NEAR((loss.row_losses.to(at::kDouble) * weights).sum().item<double>(), scalar("loss"),
                kOtherOrder * scalar("error_loss") + 2e-6)
        << what;
    if (param.has_losses) {
      EXPECT_NEAR(record->losses.balance, scalar("balance"), 1e-5 * scalar("balance")) << what;
      EXPECT_NEAR(record->losses.z_loss, scalar("z_loss"), 1e-5 * scalar("z_loss")) << what;
    }
    hidden.backward(loss.hidden_gradient);
    const std::vector<std::string> names = mixture.parameter_names();
    const std::vector<at::Tensor> parameters = mixture.parameters();
    std::size_t compared = 0;
    for (std::size_t i = 0; i < names.size(); ++i) {
      const std::string name = concat(param.name, ".gradient.", names[i]);
      if (!golden.has(name)) continue;
      ++compared;
      const at::Tensor expected = golden.floats(name);
      ASSERT_TRUE(parameters[i].grad().defined()) << names[i];
      // error_gradient: the reference's own f32 against its f64, relative to each tensor's largest entry. Other orders
      // of the sums differ by several times that.
      expect_close(parameters[i].grad(), expected,
                   (8 * scalar("error_gradient") + 1e-5) * expected.abs().max().item<double>(),
                   concat(what, " ", names[i]));
    }
    EXPECT_EQ(compared, golden.names_after(concat(param.name, ".gradient.")).size()) << what;
  }
}

TEST_P(Mixtures, LogitsWithoutGradientsAreTheSame) {
  const MixtureCase& param = GetParam();
  const Golden golden(concat("mixture_", param.file));
  const auto backbone = load_tiny(param.model);
  const TrainData data = examples_of(golden);
  const MixtureSlots mixture(mixture_of(golden, param.config, backbone->slots()), backbone->config(),
                             backbone->compute(), MixtureSlots::Trains::kNothing);
  const std::vector<std::int64_t> last = {1};
  const at::NoGradGuard no_gradients;
  const TargetBatch batch = make_target_batch(data, last, *backbone);
  const at::Tensor logits = backbone->logits(target_hidden(*backbone, batch, &mixture));
  const at::Tensor expected = golden.floats(concat(param.name, ".logits"));
  // Logits of size 3 from sums of a few hundred f32 products: 1e-6 relative, ten times over for the layers.
  expect_close(logits, expected, 3e-5 * expected.abs().max().item<double>(), concat(param.file, " ", param.name));
}

INSTANTIATE_TEST_SUITE_P(All, Mixtures, testing::ValuesIn(cases()),
                         [](const auto& test) { return concat(test.param.file, "_", test.param.name); });

}  // namespace
}  // namespace skein::agreement
