// Tasks in, scores out: rank classification and generated answers, per example. Formats: docs/formats/results.md.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "skein/dist/comm.h"
#include "skein/eval/bleu.h"
#include "skein/eval/comparison.h"
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
  std::int64_t max_new_tokens = 32;      // of a generated answer
  std::vector<std::string> stop;         // texts a generated answer ends before
  OverTemplates over_templates = OverTemplates::kMean;
  PromptOptions prompt;
  std::string method = "model";  // named in every result line
  Comm* comm = nullptr;          // borrowed: its ranks share the examples, and each gets all results; null: alone
};

struct ExampleResult {
  std::string task, template_name, id, prediction, target;
  std::vector<double> choice_scores;                    // empty for free text
  double score = 0;                                     // 0 to 1: the mean of its metrics
  std::vector<std::pair<std::string, double>> metrics;  // of a generated answer, by name
  BleuCounts bleu;                                      // where BLEU is one of them
  bool correct = false;                                 // score 1
  bool correct_per_character = false;                   // lm-eval's acc_norm
};

struct TaskResult {
  std::string task;
  std::int64_t num_examples = 0;
  double score = 0;  // mean over examples of each template, then mean or median over templates
  double interval_low = 0, interval_high = 0;  // 95 %: bootstrap over ids; Wilson where every id has one score, 0 or 1
  std::vector<std::pair<std::string, double>> metrics;  // means of those of generated answers, "corpus_bleu" with them
  double chance = 0, majority = 0;  // mean of 1/choices; share of the most frequent answer (of choices: its place)
  std::vector<ExampleResult> examples;
};

// One result per task, tasks in the order of their first example. Progress bar inside. An example is ranked if it has
// choices and no metric of texts: right if the best choice is the target or one of the references. Else its answer is
// generated greedily and compared with the references (else the target) by its metrics. Throws Failure: an unknown
// metric, an interrupt (finished tasks are the caller's to keep). Collective where options.comm is given: every rank
// calls it with the same examples, and throws where one throws.
std::vector<TaskResult> evaluate(const LoadedModel& model, const std::vector<Example>& examples,
                                 const EvalOptions& options);
// One line of results.jsonl.
Json result_line(const ExampleResult& result, const std::string& method);

// The score a rule gives a choice: higher is better. And per character of the choice (code points), as lm-eval's
// acc_norm.
double choice_score(const TargetScore& score, Scoring scoring);
double score_per_character(const TargetScore& score, const std::string& choice);

}  // namespace skein
