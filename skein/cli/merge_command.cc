// skein merge: checkpoints combined by a recipe into one.
#include <CLI/CLI.hpp>

#include <chrono>
#include <optional>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/base/progress.h"
#include "skein/base/result.h"
#include "skein/base/thread_pool.h"
#include "skein/cli/common_options.h"
#include "skein/cli/merge_stats_page.h"
#include "skein/cli/result_output.h"
#include "skein/cli/text_table.h"
#include "skein/cli/verbs.h"
#include "skein/dist/comm.h"
#include "skein/merge/manifest.h"
#include "skein/merge/run_merge.h"

namespace skein {
namespace {

struct MergeCommandOptions {
  std::string recipe;
  std::string out;
  std::uint64_t memory_bytes = 2'000'000'000;
  std::uint64_t shard_bytes = 5'000'000'000;
  std::uint64_t journal_ms = 2000;
  std::string verify;
  bool dry_run = false;
  bool resume = false;
  bool overwrite = false;
  bool statistics = false;
  bool truncate_embeddings = false;
  CommonOptions common;
};

int verify(const MergeCommandOptions& options) {
  const auto report = or_throw(merge::verify_output(real_env(), options.verify));
  if (options.common.json) {
    print_json({{"output", options.verify},
                {"tensors", report.num_tensors},
                {"bytes", report.num_bytes},
                {"differences", report.differences}});
  } else if (report.differences.empty()) {
    print_text(concat(options.verify, ": ", report.num_tensors, " tensors are as they were written\n"));
  } else {
    for (const auto& difference : report.differences) print_text(difference + "\n");
  }
  return report.differences.empty() ? 0 : 3;
}

merge::MergeRequest request_of(const MergeCommandOptions& options, bool is_root) {
  merge::MergeRequest request;
  request.recipe_path = options.recipe;
  request.out = options.out;
  request.memory_bytes = static_cast<std::int64_t>(options.memory_bytes);
  request.shard_bytes = options.shard_bytes;
  request.seed = options.common.seed;
  request.num_threads = num_threads();
  request.overwrite = options.overwrite;
  request.resume = options.resume;
  if (options.statistics) request.statistics_page = merge_stats_page;
  request.truncate_embeddings = options.truncate_embeddings;
  request.version = SKEIN_VERSION;
  request.journal_every = std::chrono::milliseconds(options.journal_ms);
  if (is_root) request.on_warning = [](const std::string& sentence) { log_warning(sentence); };
  return request;
}

int plan_only(const MergeCommandOptions& options) {
  const auto dry = or_throw(merge::dry_run(real_env(), request_of(options, true)));
  if (options.common.json) {
    print_json(dry.json);
  } else {
    print_text(dry.text);
  }
  return 0;
}

void print_summary(const MergeCommandOptions& options, const merge::MergeSummary& summary, double seconds) {
  if (summary.num_nonfinite > 0) {
    log_warning(concat(summary.num_nonfinite, " elements of the output are NaN or infinite, in ",
                       summary.nonfinite_tensors.size(), " tensors, the first ",
                       printable(summary.nonfinite_tensors[0])));
  }
  if (summary.was_complete) {
    log_info(concat(options.out, " is complete already"));
    if (options.common.json) print_json({{"output", options.out}, {"method", summary.method}, {"complete", true}});
    return;
  }
  if (summary.is_adapter) {
    if (options.common.json) {
      print_json({{"output", options.out},
                  {"method", summary.method},
                  {"complete", false},
                  {"adapters", summary.num_models},
                  {"tensors", summary.num_tensors},
                  {"output_bytes", summary.written_bytes},
                  {"relative_error", summary.relative_error},
                  {"seconds", seconds}});
      return;
    }
    log_info(concat("merged ", summary.num_models, " adapters (", summary.method, ") into ", options.out, ": ",
                    summary.num_tensors / 2, " modules",
                    summary.relative_error > 0 ? concat(", relative error of the cut ", summary.relative_error) : ""));
    return;
  }
  if (options.common.json) {
    print_json({{"output", options.out},
                {"method", summary.method},
                {"complete", false},
                {"models", summary.num_models},
                {"tensors", summary.num_tensors},
                {"dropped", summary.num_dropped},
                {"resumed", summary.num_resumed},
                {"input_bytes", summary.read_bytes},
                {"output_bytes", summary.written_bytes},
                {"nonfinite", summary.num_nonfinite},
                {"planned_peak_bytes", summary.planned_peak_bytes},
                {"seconds", seconds}});
    return;
  }
  std::string sentence = concat("merged ", summary.num_models, " models (", summary.method, ") into ", options.out,
                                ": ", summary.num_tensors, " tensors, ", summary.written_bytes / 1'000'000, " MB");
  if (summary.num_resumed > 0) sentence += concat(", ", summary.num_resumed, " of them from the run before");
  if (summary.num_dropped > 0)
    sentence += concat("; ", summary.num_dropped, " input tensors dropped (listed in ", merge::kManifestName, ")");
  log_info(sentence);
}

int run(const MergeCommandOptions& options) {
  apply_common_options(options.common);
  if (!options.verify.empty()) return verify(options);
  if (options.recipe.empty() || (options.out.empty() && !options.dry_run)) {
    throw Failure({"skein merge needs a recipe and an output folder; see skein merge --help", ErrorKind::kUsage});
  }
  if (options.dry_run) return plan_only(options);
  const auto comm = or_throw(make_comm());
  const bool is_root = comm->rank() == 0;
  auto request = request_of(options, is_root);
  std::optional<Progress> progress;
  if (is_root) {
    request.on_progress = [&](std::uint64_t done, std::uint64_t total) {
      if (!progress) progress.emplace("merging", static_cast<std::int64_t>(total >> 20), "MiB");
      progress->update(static_cast<std::int64_t>(done >> 20));
    };
  }
  const auto start = std::chrono::steady_clock::now();
  const auto summary = merge::run_merge(real_env(), *comm, request);
  if (progress) progress->finish();
  if (!summary.ok() && summary.error().kind == ErrorKind::kInterrupted) {
    throw Failure({concat("interrupted; what is done is kept, go on with: skein merge ", options.recipe, " ",
                          options.out, " --resume"),
                   ErrorKind::kInterrupted});
  }
  if (!summary.ok()) {
    if (!is_root) return 1;  // rank 0 prints it
    throw Failure(summary.error());
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (is_root) print_summary(options, *summary, seconds.count());
  return 0;
}

}  // namespace

void add_merge_verb(CLI::App& program, Job& job) {
  auto options = std::make_shared<MergeCommandOptions>();
  CLI::App& verb = add_command(program, "merge", "Checkpoints combined by a recipe into one",
                               "skein merge ties.yml merged --memory 4G\n"
                               "skein merge ties.yml --dry-run\n"
                               "skein merge --verify merged\n"
                               "mpirun -n 4 skein merge ties.yml merged");
  verb.add_option("RECIPE", options->recipe, "A recipe in mergekit's YAML grammar (docs/formats/recipe.md)");
  verb.add_option("OUT", options->out, "Folder to write");
  verb.add_option("--memory", options->memory_bytes,
                  "Memory that the merge may take at most, in bytes; K, M, G are powers of 1000")
      ->type_name("SIZE")
      ->transform(CLI::AsSizeValue(true))
      ->default_str("2G");
  verb.add_option("--shard-size", options->shard_bytes,
                  "Bytes that one file of weights holds at most; K, M, G are powers of 1000")
      ->type_name("SIZE")
      ->transform(CLI::AsSizeValue(true))
      ->default_str("5G");
  verb.add_flag("--dry-run", options->dry_run,
                "Print what would be done: tensors, files, bytes, memory, time; write nothing");
  verb.add_flag("--resume", options->resume, "Go on with a merge that was killed; begins one where there is none");
  verb.add_option(
          "--verify", options->verify,
          "Check a finished output against the digests it was written with; exit code 3 and the tensors that differ")
      ->type_name("DIR");
  verb.add_flag(
      "--stats", options->statistics,
      "Also write merge_stats.json and merge_stats.html: per tensor, norms and cosines of the task vectors, sign "
      "conflicts, kept share");
  verb.add_flag(
      "--truncate-embeddings", options->truncate_embeddings,
      "Cut embeddings of different sizes to the rows that all models have: right only where equal ids mean equal "
      "tokens");
  verb.add_option("--journal-every", options->journal_ms,
                  "Milliseconds between two points that --resume can go on from")
      ->type_name("MS")
      ->capture_default_str();
  add_overwrite_option(verb, options->overwrite);
  add_common_options(verb, options->common);
  verb.callback([&job, options] { job.run = [options] { return run(*options); }; });
}

}  // namespace skein
