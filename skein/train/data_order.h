// In which order a run reads its examples: epoch after epoch, each a fresh permutation.
//
// The permutation is a function of (seed, epoch) alone, by a counter-based generator, so that a resumed run needs to
// remember nothing but how many examples were read.
#pragma once

#include <cstdint>
#include <vector>

namespace skein {

class DataOrder {
 public:
  // num_examples >= 1.
  DataOrder(std::int64_t num_examples, std::uint64_t seed);
  // Index of the example at `position`, the count of examples read before it. Cheap while positions stay in one epoch;
  // the first of an epoch costs a shuffle.
  std::int64_t at(std::int64_t position);

 private:
  void shuffle(std::int64_t epoch);

  std::uint64_t seed_;
  std::int64_t epoch_ = -1;
  std::vector<std::int64_t> permutation_;
};

// Task by task at fixed rates, min(size, cap)^(1/temperature) of each (T5's mixing: arXiv 1910.10683, section 3.5.2);
// within a task epoch after epoch, each a fresh permutation. A function of (seed, position) alone, as above.
struct TaskRates {
  std::int64_t cap = 0;    // examples; 0: none
  double temperature = 1;  // above 1: small tasks more often
};
// Each at least 0, summing to 1. sizes: examples per task.
std::vector<double> task_rates(const std::vector<std::int64_t>& sizes, const TaskRates& rules);

class TaskOrder {
 public:
  // task_of: per example, each task of [0, max] has one at least.
  TaskOrder(const std::vector<int>& task_of, const TaskRates& rules, std::uint64_t seed);
  // Cheap for positions in ascending order; going back counts from the beginning.
  std::int64_t at(std::int64_t position);

 private:
  int draw(std::int64_t position) const;

  std::uint64_t seed_;
  std::vector<double> cumulative_;                   // of the rates
  std::vector<std::vector<std::int64_t>> examples_;  // of each task
  std::vector<DataOrder> orders_;
  std::vector<std::int64_t> drawn_;  // from each task, before next_position_
  std::int64_t next_position_ = 0;
};

// The generator: 64 well-mixed bits for (seed, stream, counter).
std::uint64_t counter_random(std::uint64_t seed, std::uint64_t stream, std::uint64_t counter);

}  // namespace skein
