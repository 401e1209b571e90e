#include "skein/infer/score.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "skein/infer/tiny_model.h"

namespace skein {
namespace {

using testing::failure_of;
using ::testing::HasSubstr;
using testing::tiny_model;

constexpr Family kFamilies[] = {Family::kLlama, Family::kQwen2, Family::kQwen3, Family::kGemma3, Family::kT5};

std::vector<EncodedExample> sample_examples() {
  std::vector<EncodedExample> examples;
  for (int i = 0; i < 7; ++i) {
    EncodedExample example;
    for (int t = 0; t < 3 + 5 * i % 13; ++t) example.input.push_back(3 + (17 * i + 31 * t) % 250);
    for (int c = 0; c < 1 + i % 4; ++c) {
      std::vector<TokenId>& choice = example.choices.emplace_back();
      for (int t = 0; t < c; ++t) choice.push_back(5 + (29 * i + 11 * c + 7 * t) % 250);
      choice.push_back(2);
    }
    example.target = example.choices.back();
    if (i == 3) example.choices.clear();
    examples.push_back(std::move(example));
  }
  return examples;
}

// Slow and obvious: one sequence per choice, softmax in f64.
TargetScore score_alone(const Backbone& backbone, const std::vector<TokenId>& input,
                        const std::vector<TokenId>& choice) {
  ForwardState state;
  std::vector<TokenId> tokens = input;
  EncodedSource source;
  const bool encoder_decoder = backbone.config().is_encoder_decoder();
  if (encoder_decoder) {
    source = backbone.encode(pack({{input}}, at::kCPU), state);
    tokens = {static_cast<TokenId>(backbone.config().decoder_start_token)};
  }
  const auto first = static_cast<std::int64_t>(tokens.size()) - 1;
  tokens.insert(tokens.end(), choice.begin(), choice.end());
  const PackedBatch batch = pack({SequenceInput{tokens, {}, nullptr, encoder_decoder ? 0 : -1}}, at::kCPU);
  const at::Tensor logits = backbone.logits(backbone.forward(batch, encoder_decoder ? &source : nullptr, state));
  const at::Tensor log_p = logits.to(at::kDouble).log_softmax(1);
  TargetScore score;
  for (std::size_t t = 0; t < choice.size(); ++t) {
    score.end_log_likelihood = log_p[first + static_cast<std::int64_t>(t)][choice[t]].item<double>();
    score.log_likelihood += score.end_log_likelihood;
    ++score.num_tokens;
  }
  return score;
}

// f32 forward passes of about a hundred sums each, on logits up to some tens: relative 2^-24 * 100, times 30.
constexpr double kTolerance = 2e-4;

TEST(ScoreChoices, AgreeWithOneSequencePerChoice) {
  for (const Family family : kFamilies) {
    const LoadedModel model = tiny_model(family);
    const auto examples = sample_examples();
    ForwardState state = model.new_state();
    const auto scores = score_choices(*model.backbone, examples, state, 1000);
    ASSERT_EQ(scores.size(), examples.size());
    for (std::size_t i = 0; i < examples.size(); ++i) {
      const auto choices =
          examples[i].choices.empty() ? std::vector<std::vector<TokenId>>{examples[i].target} : examples[i].choices;
      ASSERT_EQ(scores[i].size(), choices.size());
      for (std::size_t c = 0; c < choices.size(); ++c) {
        const TargetScore alone = score_alone(*model.backbone, examples[i].input, choices[c]);
        EXPECT_NEAR(scores[i][c].log_likelihood, alone.log_likelihood, kTolerance)
            << family_name(family) << " " << i << " " << c;
        EXPECT_NEAR(scores[i][c].end_log_likelihood, alone.end_log_likelihood, kTolerance);
        EXPECT_EQ(scores[i][c].num_tokens, alone.num_tokens);
      }
    }
  }
}

TEST(ScoreChoices, DoNotDependOnBatchOrNeighbours) {
  for (const Family family : {Family::kLlama, Family::kT5}) {
    const LoadedModel model = tiny_model(family);
    std::vector<EncodedExample> examples = sample_examples();
    ForwardState state = model.new_state();
    const auto together = score_choices(*model.backbone, examples, state, 10000);
    std::reverse(examples.begin(), examples.end());
    for (const std::int64_t batch : {1, 20, 50}) {
      const auto apart = score_choices(*model.backbone, examples, state, batch);
      for (std::size_t i = 0; i < examples.size(); ++i) {
        const auto& other = together[examples.size() - 1 - i];
        for (std::size_t c = 0; c < other.size(); ++c)
          EXPECT_NEAR(apart[i][c].log_likelihood, other[c].log_likelihood, kTolerance);
      }
    }
  }
}

TEST(ScoreChoices, ScoreMoreTokensThanOneBlockOfLogits) {
  const LoadedModel model = tiny_model();
  EncodedExample example;
  example.input = {7};
  for (int t = 0; t < 90; ++t) example.target.push_back(3 + 13 * t % 250);
  ForwardState state = model.new_state();
  const auto scores = score_choices(*model.backbone, {example}, state, 1000);
  EXPECT_EQ(scores[0][0].num_tokens, 90);
  EXPECT_NEAR(scores[0][0].log_likelihood, score_alone(*model.backbone, example.input, example.target).log_likelihood,
              90 * kTolerance);
}

TEST(ScoreChoices, RefuseAnExampleLongerThanTheBase) {
  const LoadedModel model = tiny_model();
  EncodedExample example;
  example.input.assign(90, 5);
  example.target.assign(11, 5);
  ForwardState state = model.new_state();
  EXPECT_THAT(failure_of([&] { score_choices(*model.backbone, {example}, state, 1000); }),
              HasSubstr("101 tokens with its answer; the base reads 100"));
  example.target.pop_back();
  EXPECT_EQ(failure_of([&] { score_choices(*model.backbone, {example}, state, 1000); }), "no failure");
}

}  // namespace
}  // namespace skein
