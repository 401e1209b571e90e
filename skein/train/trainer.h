// Training of an expert and of its gate, from DATA to the folder on disk.
#pragma once

#include <string>
#include <vector>

#include "skein/dist/comm.h"
#include "skein/infer/loaded_model.h"
#include "skein/io/env.h"
#include "skein/train/options.h"
#include "skein/train/train_report.h"

namespace skein {

// Trains a LoRA expert on `data` and writes it to `out` (a PEFT folder with card.json and log.jsonl). Throws Failure.
// While training, `out`.training/ holds the state to resume from; it goes when `out` appears. A state that is there
// without options.resume is refused, unless overwrite. comm: the ranks that train together (train_loop.h); rank 0
// writes.
TrainReport train_expert(Env& env, Comm& comm, const LoadedModel& model, const std::vector<std::string>& data,
                         const std::string& out, const TrainOptions& options, bool overwrite);
// Trains the PHATGOOSE gate of an expert folder on `data`, adds gates/phatgoose.safetensors to it, then gate_log.jsonl
// and the card's "gates" entry. The state is in `expert`.gate-training/.
TrainReport train_gate(Env& env, Comm& comm, const LoadedModel& model, const std::string& expert,
                       const std::vector<std::string>& data, const TrainOptions& options, bool overwrite);

}  // namespace skein
