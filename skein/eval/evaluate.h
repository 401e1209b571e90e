// Tasks in, scores out: rank classification and exact match, per example. Formats: docs/formats/results.md.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "skein/infer/loaded_model.h"
#include "skein/infer/prompt.h"
#include "skein/infer/score.h"
#include "skein/io/env.h"
#include "skein/io/json.h"
#include "skein/spec/example.h"

namespace skein {

// How a choice is scored (product: --scoring).
enum class Scoring {
  kPhatgoose,  // mean log-probability per token, end of sequence included
  kT0,         // sum, end of sequence included
  kLmEval,     // sum without end of sequence, prompt and choice tokenised together; accuracy also per character
};

struct EvalOptions {
  Scoring scoring = Scoring::kPhatgoose;
  std::int64_t limit = 0;                // examples per task; 0: all
  std::int64_t max_batch_tokens = 2048;  // rows per forward pass
  std::int64_t max_new_tokens = 32;      // exact match
  PromptOptions prompt;
  std::string method = "model";  // named in every result line
};

struct ExampleResult {
  std::string task, template_name, id, prediction, target;
  std::vector<double> choice_scores;  // empty for free text
  bool correct = false;
  bool correct_per_character = false;  // lm-eval's acc_norm
};

struct TaskResult {
  std::string task;
  std::int64_t num_examples = 0;
  double accuracy = 0;                         // mean of correct
  double interval_low = 0, interval_high = 0;  // 95 %, Wilson
  double chance = 0, majority = 0;  // mean of 1/choices; share of the most frequent answer (of choices: its place)
  std::vector<ExampleResult> examples;
};

// One result per task, tasks in the order of their first example. Progress bar inside. An example is ranked if it has
// choices, else its answer is generated greedily and must equal a reference (else the target), white space at both ends
// aside. Throws Failure: a metric other than these two, an interrupt (finished tasks are the caller's to keep).
std::vector<TaskResult> evaluate(const LoadedModel& model, const std::vector<Example>& examples,
                                 const EvalOptions& options);
// One line of results.jsonl.
Json result_line(const ExampleResult& result, const std::string& method);

// The score a rule gives a choice: higher is better. And per character of the choice (code points), as lm-eval's
// acc_norm.
double choice_score(const TargetScore& score, Scoring scoring);
double score_per_character(const TargetScore& score, const std::string& choice);
// 95 % Wilson interval of `hits` out of `count`; (0, 1) for none.
std::pair<double, double> wilson_interval(std::int64_t hits, std::int64_t count);

}  // namespace skein
