// Generalised task arithmetic in the plainest way, in double precision: what both programs mean to compute. Besides the
// result it says which elements are not decided by the rule alone, so that two right programs may differ there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "skein/merge/plan.h"

namespace skein::merge::agreement {

struct TaskInputs {
  std::vector<std::vector<float>> models;
  std::vector<float> base;
};

struct TaskResult {
  std::vector<double> values;
  std::vector<double> moved;    // sum over the models of |weight * delta|: the size that roundings are relative to
  std::vector<bool> undecided;  // at the cut of a selection by magnitude, or with votes that cancel
  std::vector<std::vector<bool>> kept;  // by model
};

// masks: of random methods, by model; else null. vote_slack: votes whose sum is below this share of their sizes are
// undecided (the roundings of a program that sums in a short type).
TaskResult merge_tasks(const std::string& method, const TensorJob& job, const TaskInputs& inputs,
                       const std::vector<std::vector<bool>>* masks, double vote_slack);

// Probability that a random method keeps each element: the density, or for DELLA a ramp over the ranks of a row.
std::vector<double> keep_probabilities(const std::string& method, const TensorJob& job, const TaskInputs& inputs,
                                       int model_idx);

}  // namespace skein::merge::agreement
