// What the trainers share before and after the loop: data, what identifies a run, what the card says of it. Throws
// Failure throughout.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "skein/dist/comm.h"
#include "skein/infer/loaded_model.h"
#include "skein/io/env.h"
#include "skein/io/json.h"
#include "skein/train/options.h"
#include "skein/train/train_data.h"
#include "skein/train/train_loop.h"
#include "skein/train/train_report.h"

namespace skein {

struct RunData {
  TrainData train, valid;
  std::vector<std::string> tasks;
};
RunData read_run_data(Env& env, const LoadedModel& model, const std::vector<std::string>& paths,
                      const TrainOptions& options);
// What must be the same when a run is resumed, and is recorded in the card.
Json run_identity(Env& env, const LoadedModel& model, const std::vector<std::string>& paths,
                  const TrainOptions& options, bool with_lora);
// The report of a run that is complete already, from its card entry, if it is the same run.
std::optional<TrainReport> finished_before(const Json& entry, const Json& identity);
// Common to all, before any work: the plain base, sane options, an old state where it may not be (rank 0 removes it).
void check_start(Env& env, const Comm& comm, const LoadedModel& model, const TrainOptions& options,
                 const std::string& state_folder, bool overwrite);
void copy_file(Env& env, const std::string& from, const std::string& to);
std::string without_trailing_slash(std::string path);

// A run that makes a folder of its own. Both functions are collective over comm's ranks.
struct FolderRun {
  std::string out, state_folder, kind;  // kind: as in the card
  Json identity;
  RunData data;
  std::optional<TrainReport> done;  // it was complete already: there is nothing to train
  TrainRun loop;                    // what run_training needs of it
};
struct FolderRunRequest {
  std::string kind;
  const std::vector<std::string>& data;
  const std::string& out;
  const TrainOptions& options;
  bool overwrite = false;
  bool with_lora = false;  // the options of a LoRA identify the run too
  Json more_identity = Json::object();
};
// Checks, reads, and refuses another folder that is there. comm is borrowed until end_folder_run.
FolderRun begin_folder_run(Env& env, Comm& comm, const LoadedModel& model, const FolderRunRequest& request);
// Rank 0 writes the folder, all at once: what write_weights puts there, the card (report and card_extra in it) and the
// log; the state goes.
void end_folder_run(Env& env, Comm& comm, const LoadedModel& model, const FolderRunRequest& request,
                    const FolderRun& run, const TrainReport& report, const Json& card_extra,
                    const std::function<void(const std::string& folder)>& write_weights);

}  // namespace skein
