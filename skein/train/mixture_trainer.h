// Joint training of mixtures (MoV, MoLoRA) and the multitask baselines beside them.
#pragma once

#include <string>
#include <vector>

#include "skein/dist/comm.h"
#include "skein/experts/mixture_slots.h"
#include "skein/infer/loaded_model.h"
#include "skein/io/env.h"
#include "skein/train/options.h"
#include "skein/train/train_loop.h"
#include "skein/train/trainer.h"

namespace skein {

struct MixtureRequest {
  MixtureConfig config;
  MixtureInit init;
  // A MoLoRA over the frozen experts of this library: only routers are trained, and config's experts, rank, alpha and
  // targets follow from it. Empty: experts are trained.
  std::string frozen_library;
};

// Whether routers tell tasks apart, or the mixture is one expert in disguise.
struct Specialisation {
  std::vector<std::string> tasks;
  std::vector<std::vector<double>> load;  // [task][expert], mean over routers; each row sums to 1
  double mutual_information = 0;          // nats, of expert and task (tasks counted alike), mean over routers
  double mean_cosine = 0;                 // of pairs of experts: 1 where all are the same
};
// From up to `limit` examples of each task.
Specialisation measure_specialisation(const Backbone& backbone, const MixtureSlots& mixture, const TrainData& data,
                                      std::int64_t limit);
Json specialisation_to_json(const Specialisation& measured);

struct MixtureReport {
  TrainReport run;
  ParameterCount parameters;  // trained
  Specialisation specialisation;
};

// Trains and writes the mixture folder `out` with card.json and log.jsonl. As train_expert in all else.
MixtureReport train_mixture(Env& env, Comm& comm, const LoadedModel& model, const std::vector<std::string>& data,
                            const std::string& out, const MixtureRequest& request, const TrainOptions& options,
                            bool overwrite);
// One (IA)3 on keys, values and the feed-forward's inner activation, written as PEFT writes it.
TrainReport train_ia3(Env& env, Comm& comm, const LoadedModel& model, const std::vector<std::string>& data,
                      const std::string& out, const TrainOptions& options, bool overwrite);

// What the loop needs of a mixture; borrows it.
Trainee mixture_trainee(MixtureSlots& mixture, const TrainOptions& options);
// A mixture of one vector as an (IA)3 adapter.
LoraAdapter ia3_of(const MixtureFile& mixture, const BackboneConfig& base, const std::string& base_hint);

}  // namespace skein
