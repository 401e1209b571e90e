// skein merge from recipe to finished folder: parse, open, plan, carry out, check, rename.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/dist/comm.h"
#include "skein/io/env.h"
#include "skein/io/json.h"

namespace skein::merge {

struct MergeRequest {
  std::string recipe_path;
  std::string out;
  std::int64_t memory_bytes = 2'000'000'000;
  std::uint64_t shard_bytes = 5'000'000'000;
  std::uint64_t seed = 0;
  int num_threads = 1;
  bool overwrite = false;
  bool resume = false;
  // Set: merge_stats.json is written too, and what this makes of it as merge_stats.html.
  std::function<std::string(const Json& statistics)> statistics_page;
  bool truncate_embeddings = false;               // embeddings of different sizes cut to the rows that all have
  std::string version;                            // of skein, for the manifest
  std::chrono::milliseconds journal_every{2000};  // how much work a crash can cost
  // Called by the calling thread now and then while bytes are written.
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> on_progress;
  std::function<void(const std::string& sentence)> on_warning;  // of the recipe, once each
};

struct MergeSummary {
  std::string method;
  std::size_t num_models = 0, num_tensors = 0, num_dropped = 0, num_resumed = 0;
  std::uint64_t read_bytes = 0;  // of one pass over the inputs
  std::uint64_t written_bytes = 0;
  std::uint64_t num_nonfinite = 0;
  std::vector<std::string> nonfinite_tensors;
  std::int64_t planned_peak_bytes = 0;
  bool was_complete = false;  // --resume found the output finished
  bool is_adapter = false;    // adapters alone were merged, into one
  double relative_error = 0;  // of an adapter that was cut to a smaller rank
};

// On rank 0 the summary is of the whole job.
Result<MergeSummary> run_merge(Env& env, Comm& comm, const MergeRequest& request);

// A recipe planned, for --dry-run: nothing is written. Of several stages each is planned on what the earlier ones would
// give.
struct DryRun {
  std::string text;
  Json json;
};
Result<DryRun> dry_run(Env& env, const MergeRequest& request);

}  // namespace skein::merge
