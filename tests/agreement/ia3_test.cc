// (IA)3 adapters against PEFT (tools/goldens/make_ia3_goldens.py): in a pool, as the mixture of one that is trained,
// gated, and written back.
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include <algorithm>

#include "skein/base/concat.h"
#include "skein/experts/mixture_slots.h"
#include "skein/experts/trainable_lora.h"
#include "skein/io/safetensors.h"
#include "skein/route/routed_slot.h"
#include "skein/spec/expert_folder.h"
#include "skein/train/mixture_trainer.h"
#include "tests/agreement/experts.h"
#include "tests/agreement/golden.h"

namespace skein::agreement {
namespace {

std::string folder_of(const std::string& name) { return concat(golden_folder(), "/agreement/experts/", name); }

LoraAdapter read_vectors(const std::string& name, const Backbone& backbone) {
  return or_throw(read_adapter(real_env(), folder_of(name), backbone.slots()));
}

class PeftIa3 : public testing::TestWithParam<std::pair<const char*, const char*>> {
 protected:
  const std::string name = GetParam().first, model = GetParam().second;
  void expect_golden_logits(const Backbone& backbone, const SlotFiller& filler, const std::string& what) const {
    const Golden golden(concat("lora_", name));
    const std::vector<Sequence> sequences = sequences_of(Golden(model));
    ForwardState state{&filler, nullptr};
    const std::vector<at::Tensor> logits = batched_logits(backbone, sequences, state);
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      expect_close(logits[i], golden.floats(concat("logits.", i)), golden.bound(backbone.compute().dtype),
                   concat(what, ", sequence ", i));
    }
  }
};

TEST_P(PeftIa3, LogitsInAPoolEqualPeft) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto backbone = load_tiny(model, dtype);
    const auto bank =
        std::make_shared<ExpertBank>(std::vector<LoraAdapter>{read_vectors(name, *backbone)},
                                     std::vector<std::string>{name}, backbone->slots(), backbone->compute());
    const RoutedSlots routed(bank, make_router(single_expert(name), *bank, {}, backbone->compute()));
    expect_golden_logits(*backbone, routed, dtype == at::kFloat ? "f32" : "bf16");
  }
}

TEST_P(PeftIa3, LogitsOfAMixtureOfOneEqualPeft) {
  const auto backbone = load_tiny(model);
  MixtureFile one = new_mixture({.kind = MixtureKind::kMov, .num_experts = 1}, backbone->config(), {});
  const LoraAdapter adapter = read_vectors(name, *backbone);
  ASSERT_EQ(one.modules.size(), adapter.vectors.size());
  for (std::size_t i = 0; i < one.modules.size(); ++i) {
    ASSERT_EQ(one.modules[i].slot_idx, adapter.vectors[i].slot_idx);
    one.modules[i].scaling = adapter.vectors[i].scaling;
  }
  const MixtureSlots mixture(one, backbone->config(), backbone->compute(), MixtureSlots::Trains::kNothing);
  expect_golden_logits(*backbone, mixture, "mixture");
}

// A gate far open is the expert alone, one far shut the base.
TEST_P(PeftIa3, AGateGoesFromTheBaseToTheExpert) {
  const auto backbone = load_tiny(model);
  const LoraAdapter adapter = read_vectors(name, *backbone);
  LoraAdapter plain = adapter;
  for (Ia3Tensors& vector : plain.vectors) std::fill(vector.scaling.begin(), vector.scaling.end(), 1.0F);
  const GatedLora gated(adapter, backbone->slots(), backbone->compute()),
      ones(plain, backbone->slots(), backbone->compute());
  const std::vector<Sequence> sequences = sequences_of(Golden(model));
  ForwardState half_state{&gated, nullptr}, ones_state{&ones, nullptr}, base_state;
  const at::Tensor base = batched_logits(*backbone, sequences, base_state)[3];
  EXPECT_LE((batched_logits(*backbone, sequences, ones_state)[3] - base).abs().max().item<double>(), 1e-4);
  EXPECT_GE((batched_logits(*backbone, sequences, half_state)[3] - base).abs().max().item<double>(), 1e-2);
  EXPECT_EQ(gated.parameter_names().size(), adapter.vectors.size());
}

TEST_P(PeftIa3, WritesWhatPeftWrote) {
  const auto backbone = load_tiny(model);
  const LoraAdapter adapter = read_vectors(name, *backbone);
  MixtureFile one{.config = {.kind = MixtureKind::kMov, .num_experts = 1}};
  for (const Ia3Tensors& vector : adapter.vectors)
    one.modules.push_back({.slot_idx = vector.slot_idx, .scaling = vector.scaling});
  const auto env = make_memory_env();
  or_throw(env->make_folders("out"));
  or_throw(write_ia3_adapter(*env, "out", ia3_of(one, backbone->config(), "tiny"), backbone->slots()));
  const auto theirs = or_throw(open_safetensors(real_env(), folder_of(name) + "/adapter_model.safetensors"));
  const auto ours = or_throw(open_safetensors(*env, "out/adapter_model.safetensors"));
  ASSERT_EQ(ours->tensors().size(), theirs->tensors().size());
  for (const TensorInfo& info : theirs->tensors()) {
    const TensorInfo* found = ours->find(info.name);
    ASSERT_NE(found, nullptr) << info.name;
    EXPECT_EQ(found->shape, info.shape) << info.name;
    const auto expected = theirs->view(info.name), got = ours->view(info.name);
    EXPECT_TRUE(std::equal(expected->bytes.begin(), expected->bytes.end(), got->bytes.begin(), got->bytes.end()));
  }
  const Json config = or_throw(read_json_file(*env, "out/adapter_config.json"));
  const Json peft = or_throw(read_json_file(real_env(), folder_of(name) + "/adapter_config.json"));
  for (const char* key : {"peft_type", "feedforward_modules", "init_ia3_weights", "fan_in_fan_out"}) {
    EXPECT_EQ(config[key], peft[key]) << key;
  }
  auto targets = config["target_modules"].get<std::vector<std::string>>();
  std::sort(targets.begin(), targets.end());
  EXPECT_EQ(targets, peft["target_modules"].get<std::vector<std::string>>());
}

INSTANTIATE_TEST_SUITE_P(All, PeftIa3, testing::Values(std::pair("ia3_llama", "llama"), std::pair("ia3_t5", "t5_v11")),
                         [](const auto& test) { return std::string(test.param.first); });

}  // namespace
}  // namespace skein::agreement
