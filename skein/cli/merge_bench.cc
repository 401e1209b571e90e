// skein bench merge: options, the work folder, the tables.
#include "skein/cli/merge_bench.h"

#include <CLI/CLI.hpp>

#include <optional>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/base/thread_pool.h"
#include "skein/cli/bench_models.h"
#include "skein/cli/bench_verbs.h"
#include "skein/cli/result_output.h"
#include "skein/cli/text_table.h"
#include "skein/io/env.h"
#include "skein/io/temporary_folder.h"

namespace skein {
namespace {

struct Measurement {
  Result<Json> (*run)(const MergeBenchOptions&, const std::string& work);
  const char* unit;
};

Measurement measurement_of(const MergeBenchOptions& options) {
  if (!options.against_cp.empty()) {
    return {bench_against_cp, "bytes read and written per second, cold files, synced; the ratio is to cp plus fsync"};
  }
  if (options.line) return {bench_line, "seconds of whole processes, not synced, warm page cache; median"};
  return {
      bench_beside_mergekit,
      "seconds of whole processes, warm page cache, median; MB: peak resident memory; net: less the start-up of both"};
}

std::string cell_text(const Json& value) {
  if (value.is_null()) return "-";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer()) return grouped(value.get<std::int64_t>());
  return fixed(value.get<double>(), value.get<double>() < 100 ? 3 : 0);
}

void print_rows(const Json& rows) {
  if (rows.empty()) return;
  std::vector<TextTable::Column> columns;
  for (const auto& [key, value] : rows[0].items()) {
    columns.push_back({key, value.is_string() ? TextTable::Align::kLeft : TextTable::Align::kRight});
  }
  TextTable table(columns);
  for (const auto& row : rows) {
    std::vector<TextTable::Cell> cells;
    for (const auto& [key, value] : row.items()) cells.emplace_back(cell_text(value));
    table.add_row(std::move(cells));
  }
  print_text(table.render(is_styled(stdout)));
}

int run(const MergeBenchOptions& options) {
  apply_common_options(options.common);
  if (options.line && !options.against_cp.empty()) {
    throw Failure({"--line and --against-cp are two measurements; give one", ErrorKind::kUsage});
  }
  std::optional<TemporaryFolder> made;  // or the user's own folder, kept
  if (!options.against_cp.empty()) or_throw(real_env().make_folders(options.against_cp));
  if (!options.against_cp.empty() || options.work.empty()) {
    made.emplace("skein-bench", options.against_cp.empty() ? temporary_root() : options.against_cp);
  } else {
    or_throw(real_env().make_folders(options.work));
  }
  const Measurement measurement = measurement_of(options);
  const Json rows = or_throw(measurement.run(options, made ? made->path() : options.work));
  if (options.common.json) {
    print_json({{"unit", measurement.unit}, {"threads", num_threads()}, {"rows", rows}});
    return 0;
  }
  print_text(concat(measurement.unit, "; ", num_threads(), " threads\n"));
  print_rows(rows);
  return 0;
}

}  // namespace

bool takes_base(const std::string& method) { return method != "linear" && method != "karcher"; }

std::string recipe_text(const BenchRecipe& recipe) {
  const double weight = 1.0 / static_cast<double>(recipe.models.size());
  const bool sparse =
      recipe.method.find("ties") != std::string::npos || recipe.method.find("dare") != std::string::npos;
  const std::string parameters = concat("parameters: {weight: ", weight, sparse ? ", density: 0.2}" : "}");
  std::string text = concat("merge_method: ", recipe.method, "\ndtype: bfloat16\n");
  if (!recipe.base.empty()) text += concat("base_model: ", recipe.base, "\n");
  if (recipe.layers == 0) {
    text += "models:\n";
    for (const auto& model : recipe.models) text += concat("- model: ", model, "\n  ", parameters, "\n");
    return text;
  }
  const std::string range = concat(", layer_range: [0, ", recipe.layers, "]");
  text += "slices:\n- sources:\n";
  if (!recipe.base.empty()) text += concat("  - {model: ", recipe.base, range, "}\n");
  for (const auto& model : recipe.models) text += concat("  - {model: ", model, range, ", ", parameters, "}\n");
  return text;
}

void add_merge_bench(CLI::App& bench, Job& job) {
  auto options = std::make_shared<MergeBenchOptions>();
  CLI::App& verb =
      add_command(bench, "merge", "skein merge beside mergekit on the same files; its cost per byte; beside cp",
                  "skein bench merge --peer .peers/mergekit/bin/mergekit-yaml\n"
                  "skein bench merge --shape qwen2.5-1.5b --models 2 --methods linear,task_arithmetic\n"
                  "skein bench merge --line\n"
                  "skein bench merge --against-cp /data --gigabytes 9");
  verb.add_option("--base", options->base, "Hugging Face folder that fine-tunes are made of (default: one of --shape)")
      ->type_name("DIR");
  std::vector<std::string> shapes;
  for (const auto& shape : bench_shapes()) shapes.push_back(shape.name);
  verb.add_option("--shape", options->shape, "Sizes of the model that is made: smollm2-135m, qwen2.5-1.5b or tiny")
      ->type_name("SHAPE")
      ->check(CLI::IsMember(shapes))
      ->capture_default_str();
  verb.add_option("--models", options->num_models, "Models that are merged, the base not counted")
      ->type_name("N")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  verb.add_option("--methods", options->methods,
                  "Merge methods (default: linear,task_arithmetic,ties,dare_ties; with --line linear,ties; with "
                  "--against-cp linear,task_arithmetic)")
      ->type_name("METHOD")
      ->delimiter(',');
  verb.add_option("--rounds", options->rounds, "Times each is run, in turns; the median counts")
      ->type_name("N")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  verb.add_option("--peer", options->peer, "mergekit-yaml to measure beside (default: the one on PATH, if any)")
      ->type_name("PROGRAM");
  verb.add_option("--work", options->work,
                  "Folder for the models that are made, which another run finds again (default: a temporary one)")
      ->type_name("DIR");
  verb.add_flag("--line", options->line, "Cost against the number of models, 2 to 8, and against their bytes");
  verb.add_option("--against-cp", options->against_cp,
                  "Large cold files on this folder's disk, beside cp and fsync of the same bytes; they are removed")
      ->type_name("DIR");
  verb.add_option(
          "--gigabytes", options->gigabytes,
          "With --against-cp: size of one model; two and a base are made, so choose more than a third of memory")
      ->type_name("GB")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--memory", options->memory, "--memory of the merges (default: skein merge's own)")
      ->type_name("SIZE");
  add_common_options(verb, options->common);
  verb.callback([&job, options] { job.run = [options] { return run(*options); }; });
}

}  // namespace skein
