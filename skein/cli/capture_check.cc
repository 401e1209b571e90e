#include "skein/cli/capture_check.h"

#include <algorithm>

#include "skein/base/concat.h"
#include "skein/cli/model_flags.h"
#include "skein/cli/result_output.h"
#include "skein/cli/routing_shares.h"
#include "skein/cli/text_table.h"
#include "skein/spec/library.h"

namespace skein {
namespace {

constexpr std::int64_t kBatchTokens = 2048;

// Mean share of each expert per task, tasks in order, each counted alike whatever its size: (tasks, E).
std::vector<std::pair<std::string, std::vector<double>>> shares_by_task(const std::vector<ExampleShares>& examples) {
  std::vector<std::pair<std::string, std::vector<double>>> tasks;
  std::vector<double> counts;
  for (const ExampleShares& example : examples) {
    if (tasks.empty() || tasks.back().first != example.task) {
      tasks.emplace_back(example.task, std::vector<double>(example.shares.size(), 0.0));
      counts.push_back(0);
    }
    for (std::size_t e = 0; e < example.shares.size(); ++e) tasks.back().second[e] += example.shares[e];
    counts.back() += 1;
  }
  for (std::size_t t = 0; t < tasks.size(); ++t) {
    for (double& share : tasks[t].second) share /= counts[t];
  }
  return tasks;
}

}  // namespace

int capture_check(const CaptureOptions& options) {
  if (options.data.empty()) throw Failure({"library check --capture needs --data", ErrorKind::kUsage});
  ModelFlags flags;
  flags.library = options.library;
  flags.base = options.base.empty() ? or_throw(open_library(real_env(), options.library)).base_hint : options.base;
  const LoadedModel model = load_model(real_env(), model_options(flags, options.common));
  std::vector<Example> examples;
  for (const std::string& path : options.data) {
    std::vector<Example> part = or_throw(read_examples(real_env(), {path}));
    part.resize(std::min<std::size_t>(part.size(), static_cast<std::size_t>(options.limit)));
    examples.insert(examples.end(), part.begin(), part.end());
  }
  const auto tasks = shares_by_task(routing_shares(model, examples, {}, kBatchTokens));

  const auto& names = model.expert_names;
  const double limit = options.factor / static_cast<double>(names.size());
  using enum TextTable::Align;
  std::vector<TextTable::Column> columns = {{"expert", kLeft}, {"mean share"}};
  for (const auto& [task, shares] : tasks) columns.push_back({printable(task, 24)});
  TextTable table(columns);
  Json found = Json::array(), all = Json::object();
  for (std::size_t e = 0; e < names.size(); ++e) {
    double mean = 0;
    for (const auto& [task, shares] : tasks) mean += shares[e] / static_cast<double>(tasks.size());
    const bool grabs = mean > limit;
    if (grabs) found.push_back(names[e]);
    all[names[e]] = mean;
    std::vector<TextTable::Cell> row = {printable(names[e]), {fixed(mean, 3), grabs}};
    for (const auto& [task, shares] : tasks) row.push_back(fixed(shares[e], 3));
    table.add_row(row);
  }
  if (options.common.json) {
    print_json({{"shares", all}, {"limit", limit}, {"capturing", found}, {"examples", examples.size()}});
  } else {
    print_text(concat(table.render(is_styled(stdout)), "\n", examples.size(), " examples; beyond its share: above ",
                      fixed(limit, 3), "\n"));
    for (const Json& name : found)
      print_text(concat(printable(name.get<std::string>()), " grabs tokens beyond its share\n"));
  }
  return found.empty() ? 0 : 3;
}

}  // namespace skein
