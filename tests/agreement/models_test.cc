// Backbones against transformers: tiny random checkpoints of every family, and real models.
#include <gtest/gtest.h>

#include "skein/base/concat.h"
#include "tests/agreement/golden.h"

namespace skein::agreement {
namespace {

class TinyModel : public testing::TestWithParam<const char*> {};

TEST_P(TinyModel, LogitsEqualTransformers) {
  const Golden golden(GetParam());
  const std::vector<Sequence> sequences = sequences_of(golden);
  ASSERT_EQ(sequences.size(), 4u);
  const auto backbone = load_tiny(GetParam());
  ForwardState state;
  const std::vector<at::Tensor> together = batched_logits(*backbone, sequences, state);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const at::Tensor expected = golden.floats(concat("logits.", i));
    expect_close(together[i], expected, golden.bound(at::kFloat), concat("sequence ", i, " in a batch"));
    const at::Tensor alone = batched_logits(*backbone, {sequences[i]}, state)[0];
    expect_close(alone, expected, golden.bound(at::kFloat), concat("sequence ", i, " alone"));
  }
}

// Weights and activations are rounded to bf16 in the same places or fewer.
TEST_P(TinyModel, LogitsInBf16EqualTransformersUpToItsOwnRounding) {
  const Golden golden(GetParam());
  const std::vector<Sequence> sequences = sequences_of(golden);
  const auto backbone = load_tiny(GetParam(), at::kBFloat16);
  ForwardState state;
  const std::vector<at::Tensor> logits = batched_logits(*backbone, sequences, state);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    expect_close(logits[i], golden.floats(concat("logits.", i)), golden.bound(at::kBFloat16), concat("sequence ", i));
  }
}

TEST_P(TinyModel, TokenByTokenEqualsTheWholeSequence) {
  const Golden golden(GetParam());
  const Sequence sequence = sequences_of(golden)[3];
  ASSERT_EQ(sequence.tokens.size(), 24u);
  const auto backbone = load_tiny(GetParam());
  std::vector<std::int64_t> one_by_one(24, 1);
  for (const auto& steps : {one_by_one, {11, 1, 1, 7, 4}}) {
    expect_close(stepwise_logits(*backbone, sequence, steps), golden.floats("logits.3"), golden.bound(at::kFloat),
                 concat(steps.size(), " steps"));
  }
}

INSTANTIATE_TEST_SUITE_P(Families, TinyModel,
                         testing::Values("llama", "llama31", "qwen2", "qwen3", "gemma3", "t5_v10", "t5_v11"),
                         [](const auto& family) { return std::string(family.param); });

// Real models from their GGUF, which transformers dequantises as we do.
void expect_real_logits(const std::string& name, c10::ScalarType dtype) {
  const Golden golden(concat("real_", name));
  const auto backbone = load(model_path(concat(name, ".gguf")), dtype);
  const std::vector<std::int32_t> column_ids = golden.ids("columns");
  const at::Tensor columns = at::tensor(at::ArrayRef<std::int32_t>(column_ids)).to(at::kLong);
  const double bound = golden.bound(dtype);
  const std::vector<Sequence> sequences = sequences_of(golden);
  ForwardState state;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const std::vector<std::int32_t> kept = golden.ids(concat("positions.", i));
    const at::Tensor positions = at::tensor(at::ArrayRef<std::int32_t>(kept)).to(at::kLong);
    const at::Tensor logits = logits_at(*backbone, sequences[i], positions, state);
    expect_close(logits.index_select(1, columns), golden.floats(concat("logits.", i)), bound, concat("prompt ", i));

    const std::vector<std::int32_t> top = golden.ids(concat("top_ids.", i));
    const at::Tensor top_ids = at::tensor(at::ArrayRef<std::int32_t>(top)).to(at::kLong).view({positions.size(0), -1});
    const at::Tensor top_logits = golden.floats(concat("top_logits.", i));
    expect_close(logits.gather(1, top_ids), top_logits, bound, concat("top tokens of prompt ", i));
    // No token outside the peer's 20 best may overtake the 20th by more than both errors.
    const at::Tensor others = logits.scatter(1, top_ids, -1e30).amax(1);
    EXPECT_TRUE((others <= top_logits.select(1, 19) + 2 * bound).all().item<bool>()) << "prompt " << i;
  }
}

TEST(RealModel, LogitsOfSmolLm2EqualTransformers) { expect_real_logits("smollm2", at::kFloat); }
TEST(RealModel, LogitsOfSmolLm2InBf16EqualTransformersUpToItsOwnRounding) {
  expect_real_logits("smollm2", at::kBFloat16);
}
TEST(RealModel, LogitsOfGemma3EqualTransformers) { expect_real_logits("gemma3-270m", at::kFloat); }
TEST(RealModel, LogitsOfGemma3InBf16EqualTransformersUpToItsOwnRounding) {
  expect_real_logits("gemma3-270m", at::kBFloat16);
}
TEST(RealModel, LogitsOfQwen2CoderEqualTransformers) { expect_real_logits("qwen25-coder-05b", at::kFloat); }
TEST(RealModel, LogitsOfQwen2CoderInBf16EqualTransformersUpToItsOwnRounding) {
  expect_real_logits("qwen25-coder-05b", at::kBFloat16);
}

TEST(RealModel, TokenByTokenEqualsTheWholeSequenceOnSmolLm2) {
  const Golden golden("real_smollm2");
  const auto backbone = load(model_path("smollm2.gguf"));
  Sequence sequence = sequences_of(golden)[3];
  sequence.tokens.resize(60);
  ForwardState state;
  const at::Tensor whole = batched_logits(*backbone, {sequence}, state)[0];
  std::vector<std::int64_t> steps(60 - 32, 1);
  steps.insert(steps.begin(), {20, 12});
  // Both are draws of the same error.
  expect_close(stepwise_logits(*backbone, sequence, steps), whole, golden.bound(at::kFloat), "steps");
}

}  // namespace
}  // namespace skein::agreement
