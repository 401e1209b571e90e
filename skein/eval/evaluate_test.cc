#include "skein/eval/evaluate.h"

#include <gmock/gmock.h>

#include "skein/infer/decode.h"
#include "skein/infer/tiny_model.h"

namespace skein {
namespace {

using ::testing::ElementsAre;
using testing::failure_of;
using ::testing::HasSubstr;
using testing::tiny_model;

TEST(Scoring, DisagreesOnOneExampleByHand) {
  // Three choices as a model might score them: token log-probabilities, the last of them the end of sequence.
  //   "no"              -2, -1            sum -3,   mean -1.5,   without end -2,   per character -1
  //   "maybe so"        -2, -2, -0.2      sum -4.2, mean -1.4,   without end -4,   per character -0.5
  //   "y"               -1.5, -2.5        sum -4,   mean -2,     without end -1.5, per character -1.5
  const TargetScore no{-3, -1, 2}, maybe{-4.2, -0.2, 3}, y{-4, -2.5, 2};
  EXPECT_DOUBLE_EQ(choice_score(no, Scoring::kPhatgoose), -1.5);
  EXPECT_DOUBLE_EQ(choice_score(maybe, Scoring::kPhatgoose), -1.4);  // best
  EXPECT_DOUBLE_EQ(choice_score(y, Scoring::kPhatgoose), -2);
  EXPECT_DOUBLE_EQ(choice_score(no, Scoring::kT0), -3);  // best
  EXPECT_DOUBLE_EQ(choice_score(maybe, Scoring::kT0), -4.2);
  EXPECT_DOUBLE_EQ(choice_score(y, Scoring::kT0), -4);
  EXPECT_DOUBLE_EQ(choice_score(no, Scoring::kLmEval), -2);
  EXPECT_DOUBLE_EQ(choice_score(maybe, Scoring::kLmEval), -4);
  EXPECT_DOUBLE_EQ(choice_score(y, Scoring::kLmEval), -1.5);  // best
  EXPECT_DOUBLE_EQ(score_per_character(no, "no"), -1);
  EXPECT_DOUBLE_EQ(score_per_character(maybe, "maybe so"), -0.5);  // best
  EXPECT_DOUBLE_EQ(score_per_character(y, "y"), -1.5);
}

TEST(Scoring, CountsCharactersNotBytes) { EXPECT_DOUBLE_EQ(score_per_character({-3, -1, 2}, "né"), -1); }

Example ranked(const std::string& task, const std::string& input, const std::vector<std::string>& choices,
               std::size_t target) {
  return {
      .input = input, .target = choices[target], .choices = choices, .id = input, .template_name = "t", .task = task};
}

std::vector<Example> sample_examples() {
  std::vector<Example> examples;
  for (int i = 0; i < 9; ++i) {
    examples.push_back(ranked("letters", concat("question ", i), {"ab", "xyz", "q", "longer one"}, i % 3 == 0 ? 1 : 2));
    if (i % 2 == 0) examples.push_back(ranked("words", concat("another ", i), {"yes", "no"}, 0));
  }
  return examples;
}

TEST(Evaluate, KeepsTasksInOrderWithChanceAndMajority) {
  const auto results = evaluate(tiny_model(), sample_examples(), {});
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0].task, "letters");
  EXPECT_EQ(results[0].num_examples, 9);
  EXPECT_DOUBLE_EQ(results[0].chance, 0.25);
  EXPECT_DOUBLE_EQ(results[0].majority, 6.0 / 9);
  EXPECT_EQ(results[1].task, "words");
  EXPECT_EQ(results[1].num_examples, 5);
  EXPECT_DOUBLE_EQ(results[1].majority, 1);
  std::int64_t hits = 0;
  for (const ExampleResult& example : results[0].examples) {
    ASSERT_EQ(example.choice_scores.size(), 4u);
    EXPECT_EQ(example.correct, example.prediction == example.target);
    hits += example.correct ? 1 : 0;
  }
  EXPECT_DOUBLE_EQ(results[0].score, static_cast<double>(hits) / 9);
  EXPECT_EQ(results[0].examples[4].id, "question 4");
}

TEST(Evaluate, TakesTheFirstExamplesOfEachTaskUpToTheLimit) {
  const auto results = evaluate(tiny_model(), sample_examples(), {.limit = 3});
  EXPECT_EQ(results[0].num_examples, 3);
  EXPECT_EQ(results[1].num_examples, 3);
  EXPECT_EQ(results[0].examples[2].id, "question 2");
}

TEST(Evaluate, PredictsTheChoiceOfTheHighestScoreUnderEachRule) {
  const LoadedModel model = tiny_model();
  for (const Scoring scoring : {Scoring::kPhatgoose, Scoring::kT0, Scoring::kLmEval}) {
    const auto results = evaluate(model, sample_examples(), {.scoring = scoring});
    for (std::size_t i = 0; i < results[0].examples.size(); ++i) {
      const ExampleResult& result = results[0].examples[i];
      const auto best =
          std::max_element(result.choice_scores.begin(), result.choice_scores.end()) - result.choice_scores.begin();
      EXPECT_EQ(result.prediction, sample_examples()[0].choices[static_cast<std::size_t>(best)]);
      // The score is the rule's on log-likelihoods taken directly.
      const Example example = ranked("letters", result.id, {"ab", "xyz", "q", "longer one"}, 0);
      ForwardState state = model.new_state();
      const auto encoded =
          encode_example(example, *model.tokenizer, model.base.config, {.joined = scoring == Scoring::kLmEval});
      const auto scores = score_choices(*model.backbone, {encoded}, state, 1000);
      for (std::size_t c = 0; c < 4; ++c)
        EXPECT_NEAR(result.choice_scores[c], choice_score(scores[0][c], scoring), 1e-3);
    }
  }
}

TEST(Evaluate, GivesTheSameForAnyBatch) {
  for (const Family family : {Family::kLlama, Family::kT5}) {
    const LoadedModel model = tiny_model(family);
    const auto whole = evaluate(model, sample_examples(), {.max_batch_tokens = 100000});
    const auto single = evaluate(model, sample_examples(), {.max_batch_tokens = 1});
    for (std::size_t t = 0; t < 2; ++t) {
      for (std::size_t i = 0; i < whole[t].examples.size(); ++i) {
        for (std::size_t c = 0; c < whole[t].examples[i].choice_scores.size(); ++c) {
          EXPECT_EQ(whole[t].examples[i].choice_scores[c], single[t].examples[i].choice_scores[c]);
        }
      }
    }
  }
}

TEST(Evaluate, MatchesGeneratedTextWithReferencesAsideFromOuterSpace) {
  const LoadedModel model = tiny_model();
  ForwardState state = model.new_state();
  const auto prompt = encode_prompt("say", *model.tokenizer, model.base.config, {});
  const std::string text = decode(*model.backbone, *model.tokenizer, prompt, {.max_new_tokens = 8}, state).text;
  ASSERT_FALSE(text.empty());
  const std::vector<Example> examples = {
      {.input = "say", .target = " " + text + "\n", .id = "own", .task = "free"},
      {.input = "say", .target = text + "x", .id = "other", .task = "free"},
      {.input = "say", .target = text + "x", .references = {"no", text}, .id = "reference", .task = "free"},
      {.input = "say", .target = text, .references = {"no"}, .id = "not the target", .task = "free"},
      {.input = "say",
       .target = text,
       .choices = {text, "no"},
       .id = "asked for text",
       .task = "free",
       .metric = "exact_match"},
  };
  const auto results = evaluate(model, examples, {.max_new_tokens = 8});
  std::vector<bool> correct;
  for (const ExampleResult& result : results[0].examples) correct.push_back(result.correct);
  EXPECT_THAT(correct, ElementsAre(true, false, true, false, true));
  EXPECT_TRUE(results[0].examples[4].choice_scores.empty());
  EXPECT_DOUBLE_EQ(results[0].score, 0.6);
}

TEST(Evaluate, AcceptsEveryRightChoice) {
  const LoadedModel model = tiny_model();
  std::vector<Example> examples = {ranked("any", "which", {"ab", "xyz", "q"}, 0)};
  const std::string best = evaluate(model, examples, {})[0].examples[0].prediction;
  const auto score_with = [&](const std::string& target, const std::vector<std::string>& references) {
    examples[0].target = target;
    examples[0].references = references;
    return evaluate(model, examples, {})[0].score;
  };
  const std::string other = best == "ab" ? "q" : "ab";
  EXPECT_EQ(score_with(other, {}), 0);
  EXPECT_EQ(score_with(other, {other, best}), 1);
}

TEST(Evaluate, AveragesTheMetricsOfAText) {
  const LoadedModel model = tiny_model();
  Example example{.input = "say", .target = "?", .id = "1", .task = "free", .metric = "exact_match+rouge_l+bleu"};
  const std::string text = evaluate(model, {example}, {.max_new_tokens = 8})[0].examples[0].prediction;
  example.target = text;
  const TaskResult result = evaluate(model, {example}, {.max_new_tokens = 8})[0];
  ASSERT_EQ(result.examples[0].metrics.size(), 3u);
  double sum = 0;
  for (const auto& [name, value] : result.examples[0].metrics) sum += value;
  EXPECT_EQ(result.examples[0].metrics[0], (std::pair<std::string, double>("exact_match", 1)));
  EXPECT_DOUBLE_EQ(result.score, sum / 3);
  EXPECT_EQ(result.metrics.back().first, "corpus_bleu");
}

TEST(Evaluate, TakesTheMedianOverTemplates) {
  const LoadedModel model = tiny_model();
  std::vector<Example> examples;
  const std::string best = evaluate(model, {ranked("a", "x", {"ab", "q"}, 0)}, {})[0].examples[0].prediction;
  for (const char* name : {"one", "two", "three"}) {
    examples.push_back(ranked("a", "x", {"ab", "q"}, 0));
    examples.back().template_name = name;
    examples.back().target = name == std::string("three") ? (best == "ab" ? "q" : "ab") : best;
  }
  EXPECT_DOUBLE_EQ(evaluate(model, examples, {})[0].score, 2.0 / 3);
  EXPECT_DOUBLE_EQ(evaluate(model, examples, {.over_templates = OverTemplates::kMedian})[0].score, 1);
}

TEST(Evaluate, NamesAMetricItDoesNotCompute) {
  Example example{.input = "a", .target = "b", .id = "a-1", .task = "sums", .metric = "blue"};
  EXPECT_THAT(failure_of([&] { evaluate(tiny_model(), {example}, {}); }), HasSubstr("sums, a-1: metric \"blue\""));
}

TEST(ResultLine, HoldsWhatTheFormatSays) {
  const ExampleResult result{.task = "boolq",
                             .template_name = "t",
                             .id = "b-1",
                             .prediction = "yes",
                             .target = "no",
                             .choice_scores = {-0.5, -1},
                             .correct_per_character = true};
  EXPECT_EQ(result_line(result, "base").dump(),
            R"({"task":"boolq","template":"t","id":"b-1","method":"base","prediction":"yes","target":"no",)"
            R"("scores":[-0.5,-1.0],"score":0.0,"correct":false,"correct_per_character":true})");
  const ExampleResult free{.task = "sums",
                           .id = "s-1",
                           .prediction = "4",
                           .target = "4",
                           .score = 0.75,
                           .metrics = {{"token_f1", 1}, {"bleu", 0.5}}};
  EXPECT_EQ(result_line(free, "base").dump(),
            R"({"task":"sums","template":"","id":"s-1","method":"base","prediction":"4","target":"4","score":0.75,)"
            R"("metrics":{"token_f1":1.0,"bleu":0.5},"correct":false})");
}

}  // namespace
}  // namespace skein
