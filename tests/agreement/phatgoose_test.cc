// Routing against the PHATGOOSE reference (tools/goldens/phatgoose_reference.py): who is chosen at every module, with
// what weight, and the logits that come of it.
#include <gtest/gtest.h>

#include "skein/base/concat.h"
#include "skein/experts/trainable_lora.h"
#include "skein/nn/bridge.h"
#include "tests/agreement/experts.h"
#include "tests/agreement/golden.h"

namespace skein::agreement {
namespace {

const std::vector<std::string> kLlamaPool = {"llama_0", "llama_1", "llama_2", "llama_3", "llama_4"};
const std::vector<std::string> kT5Pool = {"t5_0", "t5_1", "t5_2"};

struct Variant {
  std::string name;
  RouterOptions options;
};

RouterOptions top(int k) {
  RouterOptions options;
  options.top_k = k;
  return options;
}

std::vector<Variant> variants() {
  RouterOptions over_chosen = top(2), l2 = top(2), raw = top(2), cold = top(3), masked = top(2);
  over_chosen.softmax_over_chosen = true;
  l2.gate_norm = RouterOptions::GateNorm::kL2;
  raw.gate_norm = RouterOptions::GateNorm::kNone;
  cold.temperature = 0.5;
  masked.without = {"llama_1", "llama_2"};
  return {{"k1", top(1)},    {"k2", top(2)},        {"k5", top(5)},           {"k2_softmax_over_chosen", over_chosen},
          {"k2_l2", l2},     {"k2_raw_gates", raw}, {"k3_temperature", cold}, {"k2_masked", masked},
          {"t5_k1", top(1)}, {"t5_k2", top(2)}};
}

// (N, k) ids and weights -> (N, E).
at::Tensor dense(const Mixture& mixture, int num_experts) {
  at::Tensor weights = at::zeros({mixture.ids.size(0), num_experts});
  return weights.scatter_add_(1, mixture.ids.to(at::kLong), mixture.weights);
}

class Routing : public testing::TestWithParam<Variant> {};

TEST_P(Routing, EqualsTheReference) {
  const bool is_t5 = GetParam().name.starts_with("t5");
  const std::vector<std::string>& pool = is_t5 ? kT5Pool : kLlamaPool;
  const std::string model = base_of(pool[0]);
  const Golden golden(concat("phatgoose_", GetParam().name));
  const std::vector<Sequence> sequences = sequences_of(Golden(model));
  const auto backbone = load_tiny(model);
  const auto filler = make_filler(pool, *backbone, GetParam().options);
  const int num_experts = static_cast<int>(pool.size());
  const double logits_bound = kOtherOrder * golden.scalar("error_logits");
  const double weights_bound = kOtherOrder * golden.scalar("error_weights");

  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const auto record = std::make_shared<RoutingRecord>(static_cast<int>(backbone->slots().size()), num_experts);
    ForwardState state{filler.get(), record};
    const at::Tensor logits = batched_logits(*backbone, {sequences[i]}, state)[0];
    expect_close(logits, golden.floats(concat("logits.", i)), logits_bound, concat("logits of sequence ", i));

    for (const SlotName& slot : backbone->slots()) {
      const std::string name = concat("weights.", i, ".", slot.module);
      if (!golden.has(name)) continue;
      const auto& calls = record->mixtures[&slot - backbone->slots().data()];
      ASSERT_EQ(calls.size(), 1u) << name;
      expect_close(dense(calls[0], num_experts), golden.floats(name), weights_bound, name);
    }
  }
  // Keys and values of the source are routed on the encoder's tokens, once each.
  const std::string module = is_t5 ? "decoder.block.0.layer.1.EncDecAttention.k" : "model.layers.0.self_attn.q_proj";
  const std::size_t rows = is_t5 ? sequences[3].source.size() : sequences[3].tokens.size();
  EXPECT_EQ(golden.floats(concat("weights.3.", module)).size(0), static_cast<std::int64_t>(rows));
}

TEST_P(Routing, IsTheSameInABatch) {
  const std::vector<std::string>& pool = GetParam().name.starts_with("t5") ? kT5Pool : kLlamaPool;
  const std::string model = base_of(pool[0]);
  const Golden golden(concat("phatgoose_", GetParam().name));
  const std::vector<Sequence> sequences = sequences_of(Golden(model));
  const auto backbone = load_tiny(model);
  const auto filler = make_filler(pool, *backbone, GetParam().options);
  ForwardState state{filler.get(), nullptr};
  const std::vector<at::Tensor> logits = batched_logits(*backbone, sequences, state);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    expect_close(logits[i], golden.floats(concat("logits.", i)), kOtherOrder * golden.scalar("error_logits"),
                 concat("sequence ", i));
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, Routing, testing::ValuesIn(variants()),
                         [](const auto& variant) { return variant.param.name; });

TEST(MergedPool, LogitsEqualTheMeanOfTheProducts) {
  for (const auto& [file, pool] : {std::pair{"merged_llama", kLlamaPool}, std::pair{"merged_t5", kT5Pool}}) {
    const Golden golden(file);
    const std::string model = base_of(pool[0]);
    const auto backbone = load_tiny(model);
    RouterOptions options;
    options.kind = "merged";
    const auto filler = make_filler(pool, *backbone, options);
    ForwardState state{filler.get(), nullptr};
    const std::vector<at::Tensor> logits = batched_logits(*backbone, sequences_of(Golden(model)), state);
    for (std::size_t i = 0; i < logits.size(); ++i) {
      expect_close(logits[i], golden.floats(concat("logits.", i)), golden.bound(at::kFloat),
                   concat(file, ", sequence ", i));
    }
  }
}

class GatedExpert : public testing::TestWithParam<const char*> {};

TEST_P(GatedExpert, LogitsEqualTheReference) {
  const std::string name = GetParam();
  const Golden golden(concat("gated_", name));
  const std::string model = base_of(name);
  const auto backbone = load_tiny(model);
  GatedLora gated(read_expert(name, backbone->slots()), backbone->slots(), backbone->compute());
  set_gates(gated, name);
  ForwardState state{&gated, nullptr};
  const std::vector<Sequence> sequences = sequences_of(Golden(model));
  const std::vector<at::Tensor> logits = batched_logits(*backbone, sequences, state);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    expect_close(logits[i], golden.floats(concat("logits.", i)), golden.bound(at::kFloat), concat("sequence ", i));
  }
}

INSTANTIATE_TEST_SUITE_P(Pool, GatedExpert, testing::Values("llama_0", "llama_1", "t5_0", "t5_1"),
                         [](const auto& expert) { return std::string(expert.param); });

}  // namespace
}  // namespace skein::agreement
