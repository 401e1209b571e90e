// Tasks in, scores out: rank classification and exact match, per example.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "skein/infer/loaded_model.h"
#include "skein/infer/prompt.h"
#include "skein/io/env.h"
#include "skein/spec/example.h"

namespace skein {

// How a choice is scored (product: --scoring).
enum class Scoring {
  kPhatgoose,  // mean log-probability per token, end of sequence included
  kT0,         // sum, end of sequence included
  kLmEval,     // sum without end of sequence; accuracy also per character
};

struct EvalOptions {
  Scoring scoring = Scoring::kPhatgoose;
  std::int64_t limit = 0;                // examples per task; 0: all
  std::int64_t max_batch_tokens = 2048;  // rows per forward pass
  std::int64_t max_new_tokens = 32;      // exact match
  PromptOptions prompt;
  std::string method = "model";          // named in every result line
};

struct ExampleResult {
  std::string task, template_name, id, prediction, target;
  std::vector<double> choice_scores;     // empty for free text
  bool correct = false;
  bool correct_per_character = false;    // lm-eval's acc_norm
};

struct TaskResult {
  std::string task;
  std::int64_t num_examples = 0;
  double accuracy = 0;                   // mean of correct
  double interval_low = 0, interval_high = 0;  // 95 %, Wilson
  double chance = 0, majority = 0;       // mean of 1/choices; share of the most frequent answer (position)
  std::vector<ExampleResult> examples;
};

// One result per task, tasks in the order of their first example. Progress bar inside. If record is given, routing of the
// whole run is appended to it, per task.
std::vector<TaskResult> evaluate(const LoadedModel& model, const std::vector<Example>& examples, const EvalOptions& options);
// results.jsonl: one line per example (docs/formats/results.md), appended task by task so that a killed run resumes.
Json result_line(const ExampleResult& result, const std::string& method);

// 95 % Wilson interval of `hits` out of `count`.
std::pair<double, double> wilson_interval(std::int64_t hits, std::int64_t count);

}  // namespace skein
