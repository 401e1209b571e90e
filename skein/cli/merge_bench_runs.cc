// The measurements of skein bench merge: recipes, models and children in turns.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/base/median.h"
#include "skein/base/thread_pool.h"
#include "skein/cli/bench_models.h"
#include "skein/cli/child_run.h"
#include "skein/cli/merge_bench.h"
#include "skein/cli/text_table.h"
#include "skein/io/output_folder.h"

namespace skein {
namespace {

std::vector<std::string> methods_or(const MergeBenchOptions& options, std::vector<std::string> likes) {
  return options.methods.empty() ? likes : options.methods;
}

Environment peer_environment() {
  const std::string threads = concat(num_threads());
  return {{"OMP_NUM_THREADS", threads}, {"MKL_NUM_THREADS", threads}, {"HF_HUB_OFFLINE", "1"}};
}

Result<std::string> write_recipe(const std::string& work, const BenchRecipe& recipe) {
  const std::string path = join_path(work, recipe.method + ".yml");
  SKEIN_TRY(write_text_atomically(real_env(), path, recipe_text(recipe)));
  return path;
}

// Runs a child that writes `out` into an empty place, with nothing of others' still to be written.
Result<ChildRun> run_fresh(const std::vector<std::string>& words, const std::string& out,
                           const Environment& environment = {}) {
  SKEIN_TRY(real_env().remove_tree(out));
  SKEIN_TRY(real_env().remove_tree(unfinished_path(out)));
  ::sync();
  auto run = run_child(words, environment);
  SKEIN_TRY(real_env().remove_tree(out));
  return run;
}

// All runs of one program.
struct Runs {
  std::vector<double> seconds;
  std::uint64_t peak_bytes = 0;

  void add(const ChildRun& run) {
    seconds.push_back(run.seconds);
    peak_bytes = std::max(peak_bytes, run.peak_bytes);
  }
};

double megabytes(std::uint64_t bytes) { return std::round(static_cast<double>(bytes) / 1e6); }

// ---- beside mergekit ----

// Seconds until a program has loaded itself.
Result<double> start_up(const std::vector<std::string>& words) {
  std::vector<double> seconds;
  for (int i = 0; i < 3; ++i) {
    SKEIN_ASSIGN(const ChildRun run, run_child(words, peer_environment()));
    seconds.push_back(run.seconds);
  }
  return median(seconds);
}

Json peer_row(const std::string& method, const std::map<std::string, Runs>& runs, double own_start, double peer_start) {
  const Runs& own = runs.at("skein");
  const double seconds = median(own.seconds);
  Json row{{"method", method},
           {"skein s", seconds},
           {"synced s", median(runs.at("synced").seconds)},
           {"skein MB", megabytes(own.peak_bytes)}};
  if (!runs.contains("mergekit")) return row;
  const double peer = median(runs.at("mergekit").seconds);
  row["mergekit s"] = peer;
  row["mergekit MB"] = megabytes(runs.at("mergekit").peak_bytes);
  row["times"] = peer / seconds;
  // Of a model so small that starting is all, nothing is left to compare.
  const bool is_long = peer > 1.1 * peer_start && seconds > 1.1 * own_start;
  row["net times"] = is_long ? Json((peer - peer_start) / (seconds - own_start)) : Json();
  return row;
}

// ---- the line ----

struct Point {
  double gigabytes = 0;  // read and written
  double seconds = 0;
};

struct Line {
  double fixed_seconds = 0, seconds_per_gigabyte = 0;
  double worst = 0;  // of a point, as a share of its seconds
};

Line fit(const std::vector<Point>& points) {
  double x = 0, y = 0, xx = 0, xy = 0;
  const auto n = static_cast<double>(points.size());
  for (const auto& point : points) {
    x += point.gigabytes / n;
    y += point.seconds / n;
  }
  for (const auto& point : points) {
    xx += (point.gigabytes - x) * (point.gigabytes - x);
    xy += (point.gigabytes - x) * (point.seconds - y);
  }
  Line line;
  line.seconds_per_gigabyte = xx > 0 ? xy / xx : 0;
  line.fixed_seconds = y - line.seconds_per_gigabyte * x;
  for (const auto& point : points) {
    const double expected = line.fixed_seconds + line.seconds_per_gigabyte * point.gigabytes;
    line.worst = std::max(line.worst, std::abs(point.seconds - expected) / point.seconds);
  }
  return line;
}

// Rows of one axis: what was measured, and the line through it.
class Axis {
 public:
  Axis(const MergeBenchOptions& options, const std::string& work, Json& rows)
      : options_(options), work_(work), rows_(rows) {}

  Status measure(const std::string& along, const std::vector<BenchRecipe>& recipes) {
    std::vector<Point> points;
    for (const auto& recipe : recipes) {
      SKEIN_ASSIGN(const Point point, one(recipe));
      points.push_back(point);
    }
    const Line line = fit(points);
    for (std::size_t i = 0; i < points.size(); ++i) {
      rows_.push_back({{"method", recipes[i].method},
                       {"along", along},
                       {"models", recipes[i].models.size()},
                       {"layers", recipes[i].layers},
                       {"GB", points[i].gigabytes},
                       {"s", points[i].seconds},
                       {"line s", line.fixed_seconds + line.seconds_per_gigabyte * points[i].gigabytes}});
    }
    log_info(concat(recipes[0].method, " along ", along, ": ", fixed(line.fixed_seconds, 3), " s + ",
                    fixed(line.seconds_per_gigabyte, 3), " s per GB read and written; no point is further than ",
                    fixed(100 * line.worst, 0), " % from the line"));
    return {};
  }

 private:
  Result<Point> one(const BenchRecipe& recipe) const {
    SKEIN_ASSIGN(const std::string path, write_recipe(work_, recipe));
    const std::string out = join_path(work_, "out");
    auto words = merge_words(options_, path, out);
    words.insert(words.end(), {"--no-sync", "--json"});
    Point point;
    std::vector<double> seconds;
    for (int round = 0; round < options_.rounds; ++round) {
      SKEIN_ASSIGN(const ChildRun run, run_fresh(words, out));
      SKEIN_ASSIGN(const Json told, parse_json(run.out, "skein merge --json"));
      point.gigabytes = (told.at("input_bytes").get<double>() + told.at("output_bytes").get<double>()) / 1e9;
      seconds.push_back(run.seconds);
    }
    point.seconds = median(seconds);
    return point;
  }

  const MergeBenchOptions& options_;
  const std::string& work_;
  Json& rows_;
};

// ---- against cp ----

Status for_each_file(const std::string& folder, const std::function<Status(const std::string&)>& each) {
  SKEIN_ASSIGN(const auto names, real_env().list(folder));
  for (const auto& name : names) SKEIN_TRY(each(join_path(folder, name)));
  return {};
}

// Takes a folder's files out of the page cache.
Status forget(const std::string& folder) {
  return for_each_file(folder, [](const std::string& path) -> Status {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return Error{concat("cannot open ", path)};
    ::fsync(file);
    ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    ::close(file);
    return {};
  });
}

Result<double> seconds_of_copy(const std::string& from, const std::string& to) {
  const auto start = std::chrono::steady_clock::now();
  SKEIN_ASSIGN(const ChildRun run, run_child({"cp", from, to}));
  const int file = ::open(to.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0 || ::fsync(file) != 0) return Error{concat("cannot sync ", to)};
  ::close(file);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  SKEIN_TRY(real_env().remove_file(to));
  return seconds;
}

}  // namespace

std::vector<std::string> merge_words(const MergeBenchOptions& options, const std::string& recipe,
                                     const std::string& out) {
  std::vector<std::string> words{own_program(), "merge", recipe,      out,
                                 "--progress",  "none",  "--threads", concat(num_threads())};
  if (!options.memory.empty()) words.insert(words.end(), {"--memory", options.memory});
  return words;
}

Status warm_up(const std::string& folder) {
  std::vector<std::byte> buffer(1 << 24);
  return for_each_file(folder, [&](const std::string& path) -> Status {
    SKEIN_ASSIGN(const auto file, real_env().open(path));
    for (std::uint64_t at = 0; at < file->size(); at += buffer.size()) {
      const auto size = std::min<std::uint64_t>(buffer.size(), file->size() - at);
      SKEIN_TRY(file->read_at(at, {buffer.data(), static_cast<std::size_t>(size)}));
    }
    return {};
  });
}

Result<BenchInputs> bench_inputs(const MergeBenchOptions& options, const std::string& work, int count) {
  Env& env = real_env();
  const std::string label = options.base.empty() ? options.shape : base_name(options.base);
  BenchInputs inputs{options.base.empty() ? join_path(work, label) : options.base, {}};
  const auto& shapes = bench_shapes();
  if (options.base.empty() && !env.exists(inputs.base)) {
    const auto shape = std::find_if(shapes.begin(), shapes.end(), [&](const auto& s) { return s.name == label; });
    SKEIN_TRY(write_bench_model(env, inputs.base, *shape, 0));
  }
  SKEIN_TRY(warm_up(inputs.base));
  for (int i = 0; i < count; ++i) {
    inputs.tuned.push_back(join_path(work, concat(label, "-tuned-", i)));
    if (!env.exists(inputs.tuned.back())) {
      SKEIN_TRY(write_fine_tune(env, inputs.base, inputs.tuned.back(), 0.05, static_cast<std::uint64_t>(i)));
    }
    SKEIN_TRY(warm_up(inputs.tuned.back()));
  }
  return inputs;
}

Result<Json> bench_beside_mergekit(const MergeBenchOptions& options, const std::string& work) {
  SKEIN_ASSIGN(const BenchInputs inputs, bench_inputs(options, work, options.num_models));
  const std::string peer = options.peer.empty() ? find_program("mergekit-yaml").value_or("") : options.peer;
  double own_start = 0, peer_start = 0;
  if (peer.empty()) {
    log_warning(
        "mergekit-yaml is not on PATH and not named by --peer: its figures are left out (tools/peers/make_venvs.sh)");
  } else {
    SKEIN_ASSIGN(own_start, start_up({own_program(), "--version"}));
    SKEIN_ASSIGN(peer_start, start_up({peer, "--help"}));
    log_info(concat("start-up: skein ", fixed(own_start, 3), " s, mergekit ", fixed(peer_start, 3), " s"));
  }
  Json rows = Json::array();
  const std::string out = join_path(work, "out");
  for (const auto& method : methods_or(options, {"linear", "task_arithmetic", "ties", "dare_ties"})) {
    SKEIN_ASSIGN(const std::string recipe,
                 write_recipe(work, {method, takes_base(method) ? inputs.base : "", inputs.tuned}));
    const auto synced = merge_words(options, recipe, out);
    auto unsynced = synced;
    unsynced.push_back("--no-sync");
    std::map<std::string, Runs> runs;
    for (int round = 0; round < options.rounds; ++round) {
      log_info(concat(method, ", round ", round + 1));
      SKEIN_ASSIGN(const ChildRun own, run_fresh(unsynced, out));
      runs["skein"].add(own);
      SKEIN_ASSIGN(const ChildRun slow, run_fresh(synced, out));
      runs["synced"].add(slow);
      if (peer.empty()) continue;
      SKEIN_ASSIGN(const ChildRun other, run_fresh({peer, recipe, out}, out, peer_environment()));
      runs["mergekit"].add(other);
    }
    rows.push_back(peer_row(method, runs, own_start, peer_start));
  }
  return rows;
}

Result<Json> bench_line(const MergeBenchOptions& options, const std::string& work) {
  constexpr int kMostModels = 8;
  SKEIN_ASSIGN(const BenchInputs inputs, bench_inputs(options, work, kMostModels));
  SKEIN_ASSIGN(const Json config, read_json_file(real_env(), join_path(inputs.base, "config.json")));
  SKEIN_ASSIGN(const std::int64_t layers, json_integer(config, "num_hidden_layers", std::nullopt, inputs.base));
  Json rows = Json::array();
  Axis axis(options, work, rows);
  for (const auto& method : methods_or(options, {"linear", "ties"})) {
    const std::string base = takes_base(method) ? inputs.base : "";
    const auto first = [&](int count) {
      return std::vector<std::string>(inputs.tuned.begin(), inputs.tuned.begin() + count);
    };
    std::vector<BenchRecipe> by_models, by_bytes;
    for (int count = 2; count <= kMostModels; ++count) by_models.push_back({method, base, first(count), layers});
    for (int quarter = 1; quarter <= 4; ++quarter) {
      by_bytes.push_back({method, base, first(4), std::max<std::int64_t>(1, layers * quarter / 4)});
    }
    SKEIN_TRY(axis.measure("models", by_models));
    SKEIN_TRY(axis.measure("layers", by_bytes));
  }
  return rows;
}

Result<Json> bench_against_cp(const MergeBenchOptions& options, const std::string& work) {
  const auto num_matrices = std::max<std::int64_t>(1, std::llround(options.gigabytes * 1e9 / double{8192 * 8192 * 2}));
  std::vector<std::string> folders;
  for (const char* name : {"base", "first", "second"}) {
    folders.push_back(join_path(work, name));
    SKEIN_TRY(write_large_model(real_env(), folders.back(), num_matrices, folders.size()));
  }
  const std::string weights = join_path(folders[0], "model.safetensors"), out = join_path(work, "out");
  SKEIN_ASSIGN(const FileFacts facts, real_env().facts(weights));
  const double gigabytes = static_cast<double>(facts.size_bytes) / 1e9;
  Json rows = Json::array();
  for (const auto& method : methods_or(options, {"linear", "task_arithmetic"})) {
    const BenchRecipe recipe{method, takes_base(method) ? folders[0] : "", {folders[1], folders[2]}};
    SKEIN_ASSIGN(const std::string path, write_recipe(work, recipe));
    const double moved = (recipe.base.empty() ? 3 : 4) * gigabytes;
    std::vector<double> merges, copies, ratios;
    for (int round = 0; round < options.rounds; ++round) {
      for (const auto& folder : folders) SKEIN_TRY(forget(folder));
      SKEIN_ASSIGN(const double copy, seconds_of_copy(weights, join_path(work, "copy")));
      for (const auto& folder : folders) SKEIN_TRY(forget(folder));
      SKEIN_ASSIGN(const ChildRun run, run_fresh(merge_words(options, path, out), out));
      copies.push_back(2 * gigabytes / copy);
      merges.push_back(moved / run.seconds);
      ratios.push_back(merges.back() / copies.back());
      log_info(concat(method, ", round ", round + 1, ": merge ", fixed(merges.back(), 2), " GB/s in ",
                      fixed(run.seconds, 1), " s, cp ", fixed(copies.back(), 2), " GB/s, ratio ",
                      fixed(ratios.back(), 2)));
    }
    rows.push_back({{"method", method},
                    {"GB moved", moved},
                    {"merge GB/s", median(merges)},
                    {"cp GB/s", median(copies)},
                    {"ratio", median(ratios)}});
  }
  return rows;
}

}  // namespace skein
