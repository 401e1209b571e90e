// All that a run must remember to go on after it was stopped, at whatever point. Format:
// docs/formats/training-state.md.
//
// The newest state is state.safetensors; those before it are kept as state.1.safetensors and so on. Each holds a digest
// of its tensors, so that a damaged one is found out and the one before it taken. The order of the data needs no place
// in it: it follows from the seed and the step (data_order.h).
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/io/json.h"
#include "skein/train/optimiser.h"
#include "skein/train/train_report.h"

namespace skein {

struct TrainingState {
  int num_threads = 0, num_ranks = 1;  // of libtorch, of the job: others may change the last bits of what follows
  TrainReport report;                  // counts and losses so far; its steps are also the optimiser's updates
  std::vector<at::Tensor> parameters;  // f32, CPU or device
  std::vector<NamedState> optimiser;   // shared with the optimiser when saved
  std::vector<at::Tensor> best;        // parameters of the best validation so far; empty: none
};

// The folder's files.
std::string state_file(const std::string& folder, int age = 0);  // state.safetensors, state.1.safetensors, ...
bool has_state(Env& env, const std::string& folder);             // of any age
std::string log_file(const std::string& folder);                 // log.jsonl

// names: of the parameters, in order. identity: options, data, base (see check_identity). keep: states, this one
// included.
Status save_training_state(Env& env, const std::string& folder, const TrainingState& state,
                           const std::vector<std::string>& names, const Json& identity, int keep = 2);
// What a state must look like: the names and shapes of a run's parameters and of its optimiser's tensors.
struct StateShape {
  std::vector<std::string> names;
  std::vector<at::Tensor> parameters;
  std::vector<NamedState> optimiser;
};
// The newest state that is whole, tensors on the CPU; those that are damaged are warned of by name. It must be of a run
// with the same identity and shape; a difference is an error that names it.
Result<TrainingState> load_training_state(Env& env, const std::string& folder, const StateShape& shape,
                                          const Json& identity);

// A run's identity is a nested object: {"options": {...}, "data": {PATH: DIGEST}, "base": ...}. The first difference as
// a sentence, e.g. `options.learning_rate was 0.005 and is now 0.001`.
Status check_identity(const Json& saved, const Json& now, const std::string& path);

}  // namespace skein
