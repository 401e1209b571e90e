// Step after step: what train_expert and train_gate share. Knows token ids and a filler, no text, no adapter format.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/base/interrupt.h"
#include "skein/dist/comm.h"
#include "skein/io/env.h"
#include "skein/io/json.h"
#include "skein/nn/backbone.h"
#include "skein/train/options.h"
#include "skein/train/target_batch.h"
#include "skein/train/train_report.h"

namespace skein {

// What a run trains.
struct Trainee {
  const SlotFiller* filler = nullptr;  // borrowed; null: the base itself is trained
  std::vector<at::Tensor> parameters;  // f32 leaves that require a gradient, shared with the filler
  std::vector<std::string> names;      // same order
  // Each may be empty.
  std::function<void(const StepSize&)> before_step;  // sizes of the step to come
  std::function<void()> after_backward;              // of each micro-batch
  std::function<void()> after_update;
  // Mixtures: what their routers did goes into the log, by layer. layer_of_router[i]: index into layers, of router i.
  int num_experts = 0;
  std::vector<int> layer_of_router;
  std::vector<std::string> layers;
};

struct TrainRun {
  std::string what;          // for the progress bar: "expert sst2"
  std::string state_folder;  // state.safetensors and log.jsonl; made if absent
  Json identity;             // what must be the same on resume
  bool keep_best = false;  // true: validate before training and every valid_every steps, end with the best parameters;
                           // false: validate after the last step only, end with the last
  std::function<bool()> stop = interrupted;  // asked between micro-batches
  Comm* comm = nullptr;                      // borrowed; the ranks that train together; null: this process alone
};

// Data-parallel: every rank calls it with the same data, options and first weights. Of every micro-batch each rank
// computes its share of the sequences, and the gradients are added in rank order, so that the result is that of one
// rank at the same batch up to the order of sums, and the same bits on every rank. Rank 0 alone touches the folder.
//
// Trains from the first step, or from the state in the folder if options.resume. When it returns, the parameters are
// those to keep, unless report.interrupted. In either case the state is saved. valid may be empty. Throws Failure: a
// state that is there without resume, a state of another run, a loss that is not finite or far beyond guessing (the
// step and the examples named, the state before it saved), a full disk (the last good state stays). What one rank
// throws all throw.
TrainReport run_training(Env& env, const Backbone& backbone, const Trainee& trainee, const TrainData& data,
                         const TrainData& valid, const TrainRun& run, const TrainOptions& options);

// Mean loss over the target tokens of all examples, batch_size sequences at a time; no gradient.
double mean_token_loss(const Backbone& backbone, const SlotFiller* filler, const TrainData& data,
                       std::int64_t batch_size);

}  // namespace skein
