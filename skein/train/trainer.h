// The loop of training: batches, loss on targets only, gradients of what the filler owns, AdamW, saved states.
#pragma once

#include <string>

#include "skein/infer/loaded_model.h"
#include "skein/io/env.h"
#include "skein/train/options.h"

namespace skein {

struct TrainReport {
  std::int64_t steps = 0;
  double first_loss = 0, last_loss = 0;
  std::int64_t best_step = -1;  // -1: no validation
  double best_valid_loss = 0;   // experts: of best_step; gates: of the last step
  std::int64_t target_tokens = 0, tokens = 0, inputs_cut = 0;
  double seconds = 0;
  bool interrupted = false;  // stopped by Ctrl-C with a state to resume from
  std::string state_folder;  // where that state is
};

// Trains a LoRA expert on `data` and writes it to `out` (a PEFT folder with card.json and log.jsonl). Throws Failure.
// While training, `out`.training/ holds the state to resume from; it goes when `out` appears. A state that is there
// without options.resume is refused, unless overwrite.
TrainReport train_expert(Env& env, const LoadedModel& model, const std::vector<std::string>& data,
                         const std::string& out, const TrainOptions& options, bool overwrite);
// Trains the PHATGOOSE gate of an expert folder on `data`, adds gates/phatgoose.safetensors to it, then gate_log.jsonl
// and the card's "gates" entry. The state is in `expert`.gate-training/.
TrainReport train_gate(Env& env, const LoadedModel& model, const std::string& expert,
                       const std::vector<std::string>& data, const TrainOptions& options, bool overwrite);

}  // namespace skein
