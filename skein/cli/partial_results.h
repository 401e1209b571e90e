// results.jsonl in the making: finished tasks are kept beside the final name, so that a killed run goes on.
//
// FILE.partial holds the settings of the run, then for each finished task its result lines and a summary. FILE itself
// appears, complete, at finish(). Format: docs/formats/results.md.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/dist/comm.h"
#include "skein/io/env.h"
#include "skein/io/json.h"

namespace skein {

class PartialResults {
 public:
  // Goes on from FILE.partial if it was left by a run of the same settings; starts anew otherwise. An existing FILE is
  // refused unless overwrite. Torn last lines of a killed run are dropped.
  // comm (borrowed): the ranks of one job keep the same results, and the first of them writes; begin() and
  // add_task() are collective then.
  static Result<std::unique_ptr<PartialResults>> begin(Env& env, const std::string& path, const Json& settings,
                                                       bool overwrite, Comm* comm = nullptr);

  // The summary of a task that is done already; null if it is not.
  const Json* summary_of(const std::string& task) const;
  // Its result lines; null if it is not done.
  const std::vector<Json>* lines_of(const std::string& task) const;
  // Synced before it returns.
  Status add_task(const std::string& task, std::vector<Json> lines, const Json& summary);
  // Writes FILE with all result lines and removes FILE.partial.
  Status finish();

 private:
  struct DoneTask {
    std::string task;
    std::vector<Json> lines;
    Json summary;
  };

  PartialResults(Env& env, std::string path, Json settings, Comm* comm)
      : env_(env), path_(std::move(path)), settings_(std::move(settings)), comm_(comm) {}
  bool writes() const { return comm_ == nullptr || comm_->rank() == 0; }
  Status agreed(const Status& own) const { return comm_ == nullptr ? own : agree(*comm_, own); }
  Status begin_file(bool overwrite);
  Status append_task(const std::string& task, const std::vector<Json>& lines, const Json& summary);
  Status write_file();
  std::string partial_path() const { return path_ + ".partial"; }
  void read_partial();

  Env& env_;
  std::string path_;
  Json settings_;
  Comm* comm_;
  std::vector<DoneTask> done_;
};

}  // namespace skein
