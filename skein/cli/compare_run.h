// The work of skein compare: every method of a plan answers every task, one base loaded once, nothing done twice.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "skein/cli/common_options.h"
#include "skein/cli/partial_results.h"
#include "skein/eval/evaluate.h"
#include "skein/eval/plan.h"
#include "skein/eval/plan_tasks.h"

namespace skein {

struct CompareOptions {
  std::string out;  // folder
  std::string device, dtype;
  bool allow_other_base = false;
  bool keep_examples = true;           // texts and answers in results and report
  std::int64_t routing_examples = 20;  // per task and method, for the routing maps
  std::int64_t max_batch_tokens = 2048;
  CommonOptions common;
  Comm* comm = nullptr;  // borrowed: the job's ranks share the examples; null: alone
  bool is_root() const { return comm == nullptr || comm->rank() == 0; }
};

// A method ready to run.
struct RunMethod {
  std::string name;
  std::vector<std::string> flags;  // as on the command line, --base first
  std::string words;               // for tooltips
  bool is_expert = false;          // one of "every expert"
  std::string expert;              // its name
};

// The plan's methods with "every expert" spelled out and recipes merged. Throws Failure.
std::vector<RunMethod> expand_methods(const Plan& plan, const CompareOptions& options);

// What is known of a (method, task) pair that is done: {"seconds", "examples", "megabytes", "routing"}.
class ComparisonRun {
 public:
  ComparisonRun(const Plan& plan, const std::vector<AskedTask>& tasks, const CompareOptions& options,
                PartialResults& results);
  ~ComparisonRun();

  // Answers what is not answered yet. Throws Failure; what is done stays done.
  void run(const std::vector<RunMethod>& methods);
  // Mean score of a method over some tasks, answered first where they are not. For choices on held-in tasks.
  double score(const RunMethod& method, const std::vector<std::size_t>& tasks);
  // The grid of merges: chooses each cell's setting and answers all tasks with it. Returns the cells as methods, with
  // the setting in words.
  std::vector<RunMethod> run_grid();

  static std::string key(const std::string& method, const std::string& task) { return method + "\n" + task; }

 private:
  void use(const RunMethod& method);
  void answer(const RunMethod& method, std::size_t task);

  const Plan& plan_;
  const std::vector<AskedTask>& tasks_;
  const CompareOptions& options_;
  PartialResults& results_;
  EvalOptions eval_;
  std::unique_ptr<LoadedModel> model_;
  std::string loaded_base_;
  std::vector<std::string> used_;  // flags of the method in the model
};

}  // namespace skein
