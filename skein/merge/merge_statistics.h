// What people look at before they choose a method: how the models differ, tensor by tensor. For --stats.
//
// Gathered from the blocks of the writing pass, so it costs no further reading. A model's task vector is its difference
// from the base (without a base: its weights). Sums are in f64 per block, added in block order: the same for any number
// of threads.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "skein/io/json.h"
#include "skein/merge/executor.h"
#include "skein/merge/plan.h"

namespace skein::merge {

struct TensorStatistics {
  std::int64_t num_elements = 0;
  std::vector<double> squares;      // per model: sum of d^2
  std::vector<double> products;     // per pair i < j, in order (0,1), (0,2), ..., (1,2), ...: sum of d_i d_j
  std::vector<double> num_nonzero;  // per model: elements where d is not 0
  double num_conflicts = 0;         // elements where two models' d have opposite signs
  double num_shared = 0;            // elements where at least two models' d are not 0
  double num_changed = 0;    // elements of the result that are not the base's (without one: not the first model's)
  double output_square = 0;  // sum of (result - base)^2

  void add(const TensorStatistics& other);
};

class StatisticsObserver : public BlockObserver {
 public:
  explicit StatisticsObserver(const Plan& plan);
  void observe(std::size_t tensor_idx, const Block& block, const Output& output, int worker) override;

  // One line of JSON per tensor that was observed; what ranks send to the root.
  std::string lines() const;

 private:
  const Plan& plan_;
  mutable std::mutex mutex_;
  std::vector<std::vector<TensorStatistics>> blocks_;  // [tensor][block]
};

// merge_stats.json of all ranks' lines: models, tensors in the plan's order, sums per layer and of the whole.
Result<Json> statistics_json(const Plan& plan, const std::string& lines);

}  // namespace skein::merge
