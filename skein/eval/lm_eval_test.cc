// What lm-evaluation-harness wrote of SmolLM2 (tools/goldens/lm_eval_samples.py), read and answered again. The model is
// not in the tree: SKEIN_TEST_MODELS names a folder with smollm2.gguf (tools/fetch_models.sh).
#include <gtest/gtest.h>

#include <cstdlib>

#include "skein/base/concat.h"
#include "skein/eval/evaluate.h"
#include "skein/eval/task_files.h"

namespace skein {
namespace {

std::string golden(const std::string& name) { return concat(SKEIN_SOURCE_DIR, "/tests/golden/lm_eval/", name); }

LoadedModel smollm2() {
  const char* folder = std::getenv("SKEIN_TEST_MODELS");
  ModelOptions options;
  options.base = concat(folder == nullptr ? concat(SKEIN_SOURCE_DIR, "/models") : folder, "/smollm2.gguf");
  return load_model(real_env(), options);
}

TEST(LmEvalSamples, AreScoredAsByLmEval) {
  const std::string path = golden("samples_skein_choices.jsonl");
  const auto examples = or_throw(read_task_files(real_env(), {path}));
  const TaskResult result = evaluate(smollm2(), examples, {.scoring = Scoring::kLmEval}).front();
  ASSERT_EQ(result.examples.size(), 8u);
  std::size_t i = 0;
  or_throw(for_each_json_line(real_env(), path, [&](Json&& line, std::int64_t number) -> Status {
    const ExampleResult& example = result.examples[i++];
    EXPECT_EQ(example.choice_scores.size(), line["resps"].size());
    for (std::size_t c = 0; c < example.choice_scores.size(); ++c) {
      // Both in f32: sums of up to ten log-probabilities off logits of about 20, each the end of some thousand
      // roundings of 2^-24 in thirty layers.
      EXPECT_NEAR(example.choice_scores[c], line["resps"][c][0][0].get<double>(), 2e-3) << "line " << number;
    }
    EXPECT_EQ(example.correct, line["acc"] == 1.0) << "line " << number;
    EXPECT_EQ(example.correct_per_character, line["acc_norm"] == 1.0) << "line " << number;
    return {};
  }));
}

TEST(LmEvalSamples, AreContinuedAsByLmEval) {
  const std::string path = golden("samples_skein_texts.jsonl");
  const auto examples = or_throw(read_task_files(real_env(), {path}));
  const TaskResult result = evaluate(smollm2(), examples, {.max_new_tokens = 8, .stop = {"\n", ","}}).front();
  ASSERT_EQ(result.examples.size(), 2u);
  EXPECT_EQ(result.examples[0].prediction, "Wednesday");
  EXPECT_EQ(result.examples[1].prediction, "5");
}

}  // namespace
}  // namespace skein
