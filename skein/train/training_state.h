// All that a run must remember to go on after it was stopped, at whatever point. Format:
// docs/formats/training-state.md.
//
// One file, replaced atomically: a reader sees a whole state or the one before it. The order of the data needs no place
// in it: it follows from the seed and the step (data_order.h).
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/io/json.h"
#include "skein/train/trainer.h"

namespace skein {

struct TrainingState {
  std::int64_t step = 0;               // steps done; also the optimiser's updates
  int num_threads = 0;                 // of libtorch; other numbers may change the last bits of what follows
  TrainReport report;                  // counts and losses so far
  std::vector<at::Tensor> parameters;  // f32, CPU or device
  std::vector<at::Tensor> first_moments, second_moments;
  std::vector<at::Tensor> best;  // parameters of the best validation so far; empty: none
};

// The folder's files.
std::string state_file(const std::string& folder);  // state.safetensors
std::string log_file(const std::string& folder);    // log.jsonl

// names: of the parameters, in order. identity: options, data, base (see check_identity).
Status save_training_state(Env& env, const std::string& folder, const TrainingState& state,
                           const std::vector<std::string>& names, const Json& identity);
// Tensors on the CPU. The state must be of a run with the same identity and the same parameters (names and shapes of
// `like`); a difference is an error that names it.
Result<TrainingState> load_training_state(Env& env, const std::string& folder, const std::vector<std::string>& names,
                                          const std::vector<at::Tensor>& like, const Json& identity);

// A run's identity is a nested object: {"options": {...}, "data": {PATH: DIGEST}, "base": ...}. The first difference as
// a sentence, e.g. `options.learning_rate was 0.005 and is now 0.001`.
Status check_identity(const Json& saved, const Json& now, const std::string& path);

}  // namespace skein
