// What the trainers share before and after the loop: data, what identifies a run, what the card says of it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "skein/infer/loaded_model.h"
#include "skein/io/env.h"
#include "skein/io/json.h"
#include "skein/train/options.h"
#include "skein/train/train_data.h"
#include "skein/train/trainer.h"

namespace skein {

struct RunData {
  TrainData train, valid;
  std::vector<std::string> tasks;
};

// Throws Failure, as everything here.
RunData read_run_data(Env& env, const LoadedModel& model, const std::vector<std::string>& paths,
                      const TrainOptions& options);
// What must be the same when a run is resumed, and is recorded in the card.
Json run_identity(Env& env, const LoadedModel& model, const std::vector<std::string>& paths,
                  const TrainOptions& options, bool with_lora);
Json report_to_card(const TrainReport& report);
// The report of a run that is complete already, from its card entry, if it is the same run.
std::optional<TrainReport> finished_before(const Json& entry, const Json& identity);
// Common to all, before any work: the plain base, sane options, an old state where it may not be.
void check_start(Env& env, const LoadedModel& model, const TrainOptions& options, const std::string& state_folder,
                 bool overwrite);
// Of a run that makes the folder `out`: nothing if it has to run; else what its card says. Refuses another folder
// there.
std::optional<TrainReport> check_target(Env& env, const std::string& out, const std::string& state_folder,
                                        const Json& identity, const TrainOptions& options, bool overwrite);
// The card of such a folder.
Json card_of(const std::string& kind, const LoadedModel& model, const RunData& data, const Json& identity,
             const TrainReport& report, const TrainOptions& options);
void copy_file(Env& env, const std::string& from, const std::string& to);
std::string without_trailing_slash(std::string path);

}  // namespace skein
