#include "skein/cli/capture_check.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "skein/base/concat.h"
#include "skein/base/median.h"
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

// ||s B A||_F over all modules, without the product: ||B A||^2 = sum of (B^T B) . (A A^T).
double update_size(const LoraAdapter& adapter) {
  double squares = 0;
  for (const LoraTensors& module : adapter.modules) {
    const at::Tensor a = at::tensor(module.a).view({module.rank, -1}).to(at::kDouble);
    const at::Tensor b = at::tensor(module.b).view({-1, module.rank}).to(at::kDouble);
    squares += module.scale * module.scale * (b.t().matmul(b) * a.matmul(a.t())).sum().item<double>();
  }
  return std::sqrt(std::max(0.0, squares));
}

double gate_size(const GateFile& gate) {
  double squares = 0;
  for (const GateTensors& module : gate.modules) {
    for (const double value : module.directions) squares += value * value;
  }
  return std::sqrt(squares);
}

// Each number over the median of those above 0 (0 where there is none).
std::vector<double> over_median(const std::vector<double>& sizes) {
  std::vector<double> sorted;
  for (const double size : sizes) {
    if (size > 0) sorted.push_back(size);
  }
  std::vector<double> result(sizes.size(), 0.0);
  if (sorted.empty()) return result;
  std::nth_element(sorted.begin(), sorted.begin() + sorted.size() / 2, sorted.end());
  for (std::size_t i = 0; i < sizes.size(); ++i) result[i] = sizes[i] / sorted[sorted.size() / 2];
  return result;
}

struct Sizes {
  std::vector<double> updates, gates;  // of each expert, over the pool's median
};

Sizes sizes_of(const Library& library, const char* gate_kind, const std::vector<SlotName>& slots) {
  std::vector<double> updates, gates;
  for (const LibraryEntry& entry : library.experts) {
    const std::string folder = library.folder_of(entry.name);
    updates.push_back(update_size(or_throw(read_lora_adapter(real_env(), folder, slots))));
    const std::vector<std::string> kinds = gate_kinds(real_env(), folder);
    const bool has = gate_kind != nullptr && std::find(kinds.begin(), kinds.end(), gate_kind) != kinds.end();
    gates.push_back(has ? gate_size(or_throw(read_gate(real_env(), folder, gate_kind, slots))) : 0);
  }
  return {over_median(updates), over_median(gates)};
}

}  // namespace

int capture_check(const CaptureOptions& options) {
  if (options.data.empty()) throw Failure({"library check --capture needs --data", ErrorKind::kUsage});
  const Library library = or_throw(open_library(real_env(), options.library));
  ModelFlags flags;
  flags.library = options.library;
  flags.base = options.base.empty() ? library.base_hint : options.base;
  flags.router = options.router;
  const LoadedModel model = load_model(real_env(), model_options(flags, options.common));
  std::vector<Example> examples;
  for (const std::string& path : options.data) {
    std::vector<Example> part = or_throw(read_examples(real_env(), {path}));
    part.resize(std::min<std::size_t>(part.size(), static_cast<std::size_t>(options.limit)));
    examples.insert(examples.end(), part.begin(), part.end());
  }
  const auto tasks = shares_by_task(routing_shares(model, examples, {}, kBatchTokens));
  const Sizes sizes = sizes_of(library, router_kind(options.router).gates, model.backbone->slots());

  const auto& names = model.expert_names;
  const double limit = options.factor / static_cast<double>(names.size());
  using enum TextTable::Align;
  std::vector<TextTable::Column> columns = {{"expert", kLeft}, {"mean share"}, {"update"}, {"gates"}};
  for (const auto& [task, shares] : tasks) columns.push_back({printable(task, 24)});
  TextTable table(columns);
  Json found = Json::array(), all = Json::object();
  std::vector<std::string> sentences;
  for (std::size_t e = 0; e < names.size(); ++e) {
    double mean = 0;
    for (const auto& [task, shares] : tasks) mean += shares[e] / static_cast<double>(tasks.size());
    const bool grabs = mean > limit;
    const bool is_large = sizes.updates[e] > options.size_factor, is_long = sizes.gates[e] > options.size_factor;
    if (grabs || is_large || is_long) found.push_back(names[e]);
    const std::string name = printable(names[e]);
    if (grabs) sentences.push_back(name + " grabs tokens beyond its share");
    if (is_large)
      sentences.push_back(concat(name, " has an update ", fixed(sizes.updates[e], 1), " times the median's size"));
    if (is_long)
      sentences.push_back(concat(name, " has gates ", fixed(sizes.gates[e], 1), " times the median's length"));
    all[names[e]] = {{"share", mean}, {"update_over_median", sizes.updates[e]}, {"gates_over_median", sizes.gates[e]}};
    std::vector<TextTable::Cell> row = {
        name, {fixed(mean, 3), grabs}, {fixed(sizes.updates[e], 2), is_large}, {fixed(sizes.gates[e], 2), is_long}};
    for (const auto& [task, shares] : tasks) row.push_back(fixed(shares[e], 3));
    table.add_row(row);
  }
  if (options.common.json) {
    print_json({{"experts", all}, {"limit", limit}, {"capturing", found}, {"examples", examples.size()}});
  } else {
    print_text(concat(table.render(is_styled(stdout)), "\n", examples.size(),
                      " examples; too much: a mean share above ", fixed(limit, 3), ", an update or gates longer than ",
                      fixed(options.size_factor, 1), " times the pool's median\n"));
    for (const std::string& sentence : sentences) print_text(sentence + "\n");
  }
  return found.empty() ? 0 : 3;
}

}  // namespace skein
