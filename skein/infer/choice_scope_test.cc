// Choices by sequence, for a layer or the model, and hints, through whole backbones: what a sequence gets does not
// depend on its neighbours, and every stream of an encoder-decoder goes by its own rows.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "skein/experts/random_experts.h"
#include "skein/infer/decode.h"
#include "skein/infer/score.h"
#include "skein/infer/tiny_model.h"

namespace skein {
namespace {

struct Pool {
  LoadedModel model;
  explicit Pool(Family family, const RouterOptions& router) : model(testing::tiny_model(family)) {
    const auto& slots = model.backbone->slots();
    std::mt19937_64 generator(2);
    std::vector<LoraAdapter> adapters;
    std::vector<GateFile> gates;
    for (int e = 0; e < 4; ++e) {
      adapters.push_back(random_adapter(slots, std::vector<std::int64_t>(slots.size(), 3), generator));
      gates.push_back(random_gate(slots, generator));
    }
    model.bank =
        std::make_shared<ExpertBank>(adapters, std::vector<std::string>{"a", "b", "c", "d"}, slots, ComputeOptions{});
    model.filler = std::make_shared<RoutedSlots>(model.bank, make_router(router, *model.bank, gates, ComputeOptions{}));
  }
  std::vector<EncodedExample> examples() const {
    std::vector<EncodedExample> encoded;
    for (const char* input : {"one two", "three", "four five six"}) {
      const Example example{.input = input, .target = "xyz", .choices = {"xyz", "q"}};
      encoded.push_back(encode_example(example, *model.tokenizer, model.base.config, {}));
    }
    return encoded;
  }
  std::vector<double> scores(const std::vector<EncodedExample>& examples) const {
    ForwardState state = model.new_state();
    std::vector<double> all;
    for (const auto& choices : score_choices(*model.backbone, examples, state, 10000)) {
      for (const TargetScore& score : choices) all.push_back(score.log_likelihood);
    }
    return all;
  }
};

const std::vector<Family> kFamilies = {Family::kLlama, Family::kGemma3, Family::kT5};

TEST(ChoiceScope, ASequencesScoresAreItsOwnWhateverStandsBesideIt) {
  using Scope = RouterUse::Scope;
  using Sharing = RouterUse::Sharing;
  for (const Family family : kFamilies) {
    for (const RouterUse& use :
         {RouterUse{.scope = Scope::kSequence}, RouterUse{.sharing = Sharing::kLayer},
          RouterUse{.sharing = Sharing::kModel},
          RouterUse{.scope = Scope::kSequence, .sharing = Sharing::kModel, .mixing = RouterUse::Mixing::kFactors}}) {
      const Pool pool(family, {.use = use});
      const auto examples = pool.examples();
      const std::vector<double> together = pool.scores(examples);
      for (std::size_t i = 0; i < examples.size(); ++i) {
        const std::vector<double> alone = pool.scores({examples[i]});
        for (std::size_t c = 0; c < 2; ++c) EXPECT_NEAR(alone[c], together[2 * i + c], 2e-4) << i;
      }
    }
  }
}

// The prompt decides: an answer scored as one of many choices has the score it has alone.
TEST(ChoiceScope, AnAnswersScoreDoesNotDependOnTheOtherAnswers) {
  for (const Family family : kFamilies) {
    const Pool pool(family, {.use = {.scope = RouterUse::Scope::kSequence}});
    EncodedExample example = pool.examples()[0];
    const std::vector<double> both = pool.scores({example});
    example.choices.erase(example.choices.begin());
    EXPECT_NEAR(pool.scores({example})[0], both[1], 2e-4);
  }
}

TEST(ChoiceScope, TextGeneratedInABatchIsTheTextAlone) {
  for (const Family family : kFamilies) {
    const Pool pool(family, default_router("smear"));
    std::vector<std::vector<TokenId>> prompts;
    for (const EncodedExample& example : pool.examples()) prompts.push_back(example.input);
    const DecodeOptions options{.max_new_tokens = 6};
    ForwardState state = pool.model.new_state();
    const auto together = decode_batch(*pool.model.backbone, *pool.model.tokenizer, prompts, options, state);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      ForwardState own = pool.model.new_state();
      EXPECT_EQ(decode(*pool.model.backbone, *pool.model.tokenizer, prompts[i], options, own).tokens,
                together[i].tokens);
    }
  }
}

TEST(ChoiceScope, AHintThatLeavesOneExpertIsThatExpert) {
  const float nothing = -std::numeric_limits<float>::infinity();
  for (const Family family : kFamilies) {
    const Pool routed(family, {.top_k = 2, .softmax_over_chosen = true});
    auto examples = routed.examples();
    const std::vector<double> free = routed.scores(examples);
    examples[1].hint = std::make_shared<RoutingHint>(std::vector<float>{nothing, nothing, 0, nothing});
    const std::vector<double> hinted = routed.scores(examples);
    const std::vector<double> single = Pool(family, {.kind = "single", .expert = "c"}).scores(examples);
    for (std::size_t i = 0; i < free.size(); ++i) {
      EXPECT_NEAR(hinted[i], i / 2 == 1 ? single[i] : free[i], 2e-4) << i;
    }
    EXPECT_GT(std::abs(single[2] - free[2]), 1e-2);  // it makes a difference
  }
}

}  // namespace
}  // namespace skein
