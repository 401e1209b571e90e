// Methods side by side on tasks: what the lines of results.jsonl add up to.
//
// The unit of every statistic is the example id: its templates travel together when ids are drawn again, and the same
// draw is used for all methods, so that differences are paired. Tasks are drawn one by one (stratified).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "skein/base/result.h"

namespace skein {

// One answered example.
struct ScoredExample {
  std::string task, template_name, id;
  double score = 0;  // 0 to 1
};

enum class OverTemplates { kMean, kMedian };

struct ComparedTask {
  std::string name;
  std::string category;     // empty: the task alone
  bool is_held_in = false;  // some expert was trained on it
  std::string own_expert;   // held-in: the method whose score stands for 1
};

struct ComparisonOptions {
  OverTemplates over_templates = OverTemplates::kMean;
  int num_resamples = 10000;  // Holm over m methods needs p below 0.05 / m to be possible
  std::uint64_t seed = 0;
  std::string reference;  // the method the others are tested against; must be among them
};

struct Estimate {
  double value = 0, low = 0, high = 0;  // 95 % bootstrap interval
};

// Against the reference, over one set of tasks.
struct Difference {
  Estimate gain;                      // score minus the reference's
  double bootstrap_p = 1;             // paired bootstrap, Holm-corrected over the methods
  double mcnemar_p = 1;               // exact, over ids one method does better than the other; Holm-corrected
  std::int64_t wins = 0, losses = 0;  // ids
};

// A set of tasks: all, held-in, held-out, a category, or one task.
struct TaskGroup {
  std::string name;
  std::vector<std::size_t> tasks;  // places in Comparison::tasks
  enum class Kind { kAll, kHeldIn, kHeldOut, kCategory, kTask } kind = Kind::kTask;
};

struct GroupResult {
  TaskGroup group;
  std::vector<Estimate> scores;      // per method: mean over categories of the mean over their tasks
  std::vector<Estimate> normalised;  // per method: scores by the reference's (held-in: by the own expert's), averaged
                                     // the same way; NaN where the divisor is missing or 0
  std::vector<Difference> differences;  // per method
};

struct Comparison {
  std::vector<std::string> methods;
  std::vector<ComparedTask> tasks;
  std::vector<std::int64_t> num_ids, num_templates;  // per task
  std::vector<GroupResult> groups;                   // whole sets first, then categories, then tasks
};

// examples[method]: every method answered the same examples. An error names the method and the example that is missing.
Result<Comparison> compare_methods(const std::vector<std::string>& methods,
                                   const std::vector<std::vector<ScoredExample>>& examples,
                                   const std::vector<ComparedTask>& tasks, const ComparisonOptions& options);

}  // namespace skein
