// The tasks of a plan with their examples read: what every method is asked.
#pragma once

#include <string>
#include <vector>

#include "skein/eval/comparison.h"
#include "skein/eval/plan.h"
#include "skein/spec/example.h"

namespace skein {

struct AskedTask {
  ComparedTask task;
  std::vector<Example> examples;     // (id, template) tells them apart
  double chance = 0, majority = 0;   // mean of 1/choices; share of the most frequent answer (of choices: its place)
  std::vector<std::string> digests;  // of its files
};

// In the plan's order. A limit counts ids: each comes with all its templates. Errors: a file that cannot be read, a
// task that two entries of the plan name.
Result<std::vector<AskedTask>> read_plan_tasks(Env& env, const Plan& plan);

}  // namespace skein
