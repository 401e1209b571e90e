#include "skein/eval/report_data.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>

#include "skein/base/concat.h"

namespace skein {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Numbers in a page need no more digits than anyone reads. NaN becomes null.
double rounded(double value, double per_unit = 1e5) {
  return std::isnan(value) ? value : std::round(value * per_unit) / per_unit;
}
Json triple(const Estimate& estimate) {
  return {rounded(estimate.value), rounded(estimate.low), rounded(estimate.high)};
}

const char* kind_word(TaskGroup::Kind kind) {
  using enum TaskGroup::Kind;
  switch (kind) {
    case kAll:
      return "all";
    case kHeldIn:
      return "held-in";
    case kHeldOut:
      return "held-out";
    case kCategory:
      return "category";
    case kTask:
      return "task";
  }
  return "";
}

Json group_json(const GroupResult& result) {
  Json scores = Json::array(), normalised = Json::array(), gain = Json::array(), bootstrap = Json::array(),
       mcnemar = Json::array(), wins = Json::array(), losses = Json::array();
  for (std::size_t m = 0; m < result.scores.size(); ++m) {
    scores.push_back(triple(result.scores[m]));
    normalised.push_back(triple(result.normalised[m]));
    gain.push_back(triple(result.differences[m].gain));
    bootstrap.push_back(rounded(result.differences[m].bootstrap_p, 1e6));
    mcnemar.push_back(rounded(result.differences[m].mcnemar_p, 1e6));
    wins.push_back(result.differences[m].wins);
    losses.push_back(result.differences[m].losses);
  }
  return {{"name", result.group.name},
          {"kind", kind_word(result.group.kind)},
          {"tasks", result.group.tasks},
          {"scores", scores},
          {"normalised", normalised},
          {"gain", gain},
          {"bootstrap", bootstrap},
          {"mcnemar", mcnemar},
          {"wins", wins},
          {"losses", losses}};
}

const GroupResult& task_group(const Comparison& comparison, std::size_t task) {
  return *std::find_if(comparison.groups.begin(), comparison.groups.end(), [&](const GroupResult& result) {
    return result.group.kind == TaskGroup::Kind::kTask && result.group.tasks.front() == task;
  });
}

// Mean normalised score of a cell over some tasks; NaN if there are none.
double cell_score(const Comparison& comparison, std::size_t method, const std::vector<std::size_t>& tasks) {
  double sum = 0, count = 0;
  for (const std::size_t task : tasks) {
    const double value = task_group(comparison, task).normalised[method].value;
    if (std::isnan(value)) continue;
    sum += value;
    ++count;
  }
  return count > 0 ? sum / count : kNaN;
}

Json grid_json(const Report& report) {
  std::vector<std::size_t> held_out;
  for (std::size_t t = 0; t < report.comparison.tasks.size(); ++t) {
    if (!report.comparison.tasks[t].is_held_in) held_out.push_back(t);
  }
  Json grid = Json::array();
  for (const ReportCell& cell : report.cells) {
    grid.push_back({{"name", report.comparison.methods[cell.method]},
                    {"method", cell.method},
                    {"line", cell.line},
                    {"count", cell.count},
                    {"setting", cell.setting},
                    {"normalised",
                     {{"held-in", rounded(cell_score(report.comparison, cell.method, cell.held_in))},
                      {"held-out", rounded(cell_score(report.comparison, cell.method, held_out))}}}});
  }
  return grid;
}

// Averages the slots that share a label: shares of weight per expert, and entropies.
class SlotAverages {
 public:
  void add(const std::string& label, const Json& shares, double entropy) {
    const auto [it, is_new] = places_.try_emplace(label, labels_.size());
    if (is_new) {
      labels_.push_back(label);
      sums_.emplace_back(shares.size(), 0.0);
      entropy_.push_back(0);
      counts_.push_back(0);
    }
    const std::size_t place = it->second;
    for (std::size_t e = 0; e < shares.size() && e < sums_[place].size(); ++e)
      sums_[place][e] += shares[e].get<double>();
    entropy_[place] += entropy;
    counts_[place] += 1;
  }
  const std::vector<std::string>& labels() const { return labels_; }
  Json shares() const {
    Json rows = Json::array();
    for (std::size_t i = 0; i < labels_.size(); ++i) {
      Json row = Json::array();
      for (const double sum : sums_[i]) row.push_back(rounded(sum / counts_[i], 1e4));
      rows.push_back(std::move(row));
    }
    return rows;
  }
  Json entropy() const {
    Json values = Json::array();
    for (std::size_t i = 0; i < labels_.size(); ++i) values.push_back(rounded(entropy_[i] / counts_[i], 1e4));
    return values;
  }

 private:
  std::map<std::string, std::size_t> places_;
  std::vector<std::string> labels_;
  std::vector<std::vector<double>> sums_;
  std::vector<double> entropy_, counts_;
};

Json routing_json(const Report& report, const ReportRouting& routing) {
  const auto experts = routing.maps.front()["experts"].get<std::vector<std::string>>();
  SlotAverages layers, modules, tasks;
  std::int64_t num_examples = 0;
  Json oracle = Json::array();
  for (std::size_t t = 0; t < routing.maps.size(); ++t) {
    const Json& map = routing.maps[t];
    for (std::size_t s = 0; s < map["slots"].size(); ++s) {
      const double entropy = map["entropy"][s].get<double>();
      layers.add(map["slots"][s][0].get<std::string>(), map["shares"][s], entropy);
      modules.add(map["slots"][s][1].get<std::string>(), map["shares"][s], entropy);
      tasks.add(report.comparison.tasks[t].name, map["shares"][s], entropy);
    }
    num_examples += map["examples"].get<std::int64_t>();
    const auto best = std::find(experts.begin(), experts.end(), report.oracle.empty() ? "" : report.oracle[t]);
    oracle.push_back(best == experts.end() ? Json() : Json(best - experts.begin()));
  }
  return {{"method", report.comparison.methods[routing.method]},
          {"experts", experts},
          {"layers", layers.labels()},
          {"layerShare", layers.shares()},
          {"tokenEntropy", layers.entropy()},
          {"modules", modules.labels()},
          {"moduleShare", modules.shares()},
          {"taskShare", tasks.shares()},
          {"numExamples", num_examples},
          {"oracle", oracle}};
}

std::string points(double value, bool with_sign = false) {
  if (std::isnan(value)) return "–";
  char text[32];
  std::snprintf(text, sizeof text, with_sign ? "%+.1f" : "%.1f", 100 * value);
  return text;
}

// A cell of a Markdown table: what is between bars must have none.
std::string cell_text(std::string text) {
  for (std::size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.replace(at, 1, "\\|");
  return printable(text, 200);
}

std::size_t place_of(const std::vector<std::string>& names, const std::string& name) {
  return static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
}

const char* mark(const GroupResult& result, std::size_t method, std::size_t reference) {
  const Difference& difference = result.differences[method];
  if (method == reference || difference.bootstrap_p >= 0.05 || difference.mcnemar_p >= 0.05) return "";
  return difference.gain.value > 0 ? " ▲" : " ▼";
}

std::vector<std::size_t> by_score(const Comparison& comparison) {
  std::vector<std::size_t> order(comparison.methods.size());
  for (std::size_t m = 0; m < order.size(); ++m) order[m] = m;
  const auto& scores = comparison.groups.front().scores;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return scores[a].value > scores[b].value; });
  return order;
}

}  // namespace

Json report_json(const Report& report) {
  const Comparison& comparison = report.comparison;
  Json methods = Json::array(), tasks = Json::array(), groups = Json::array(), routing = Json::array(),
       settings = Json::array();
  for (std::size_t m = 0; m < comparison.methods.size(); ++m) {
    const ReportMethod& method = report.methods[m];
    methods.push_back({{"name", comparison.methods[m]},
                       {"words", method.words},
                       {"usesAnswers", method.uses_answers},
                       {"secondsPerExample", rounded(method.seconds_per_example)},
                       {"relativeTime", rounded(method.relative_time, 1e3)},
                       {"addedMegabytes", rounded(method.added_megabytes, 1e2)}});
  }
  for (std::size_t t = 0; t < comparison.tasks.size(); ++t) {
    tasks.push_back({{"name", comparison.tasks[t].name},
                     {"category", comparison.tasks[t].category},
                     {"heldIn", comparison.tasks[t].is_held_in},
                     {"ids", comparison.num_ids[t]},
                     {"templates", comparison.num_templates[t]},
                     {"chance", rounded(report.tasks[t].chance)},
                     {"majority", rounded(report.tasks[t].majority)}});
  }
  for (const GroupResult& result : comparison.groups) groups.push_back(group_json(result));
  for (const ReportRouting& each : report.routing) routing.push_back(routing_json(report, each));
  for (const auto& [key, value] : report.settings) settings.push_back({key, value});
  return {{"base", report.base},
          {"scoring", report.scoring},
          {"reference", place_of(comparison.methods, report.reference)},
          {"methods", methods},
          {"tasks", tasks},
          {"groups", groups},
          {"grid", grid_json(report)},
          {"routing", routing},
          {"settings", settings},
          {"plan", report.plan},
          {"examples", report.examples}};
}

std::string report_table(const Report& report) {
  const Comparison& comparison = report.comparison;
  const std::size_t reference = place_of(comparison.methods, report.reference);
  const std::vector<std::size_t> order = by_score(comparison);
  std::string head = "| method |", rule = "|---|";
  for (const GroupResult& result : comparison.groups) {
    if (result.group.kind == TaskGroup::Kind::kTask) continue;
    head += concat(" ", cell_text(result.group.name), " (", result.group.tasks.size(), ") |");
    rule += "---:|";
  }
  std::string text = head + " gain | p (bootstrap) | p (McNemar) | time |\n" + rule + "---:|---:|---:|---:|\n";
  for (const std::size_t m : order) {
    text += concat("| ", cell_text(comparison.methods[m]), report.methods[m].uses_answers ? " (sees the answers)" : "",
                   " |");
    for (const GroupResult& result : comparison.groups) {
      if (result.group.kind == TaskGroup::Kind::kTask) continue;
      const Estimate& score = result.scores[m];
      text += concat(" ", points(score.value), " (", points(score.low), "–", points(score.high), ")",
                     mark(result, m, reference), " |");
    }
    const Difference& all = comparison.groups.front().differences[m];
    char p[64] = "– | –", time[16] = "–";
    if (m != reference) std::snprintf(p, sizeof p, "%.3f | %.3f", all.bootstrap_p, all.mcnemar_p);
    if (report.methods[m].relative_time > 0) std::snprintf(time, sizeof time, "%.2f×", report.methods[m].relative_time);
    text += concat(" ", m == reference ? "–" : points(all.gain.value, true), " | ", p, " | ", time, " |\n");
  }
  text += concat("\nScores in percent with 95 % bootstrap intervals over ids; gain and p against ",
                 cell_text(report.reference), ", Holm-corrected; ▲ ▼: both tests below 0.05. Scoring ", report.scoring,
                 ".\n\n| task | n | chance | majority |");
  rule = "|---|---:|---:|---:|";
  for (const std::size_t m : order) {
    text += concat(" ", cell_text(comparison.methods[m]), " |");
    rule += "---:|";
  }
  text += "\n" + rule + "\n";
  for (std::size_t t = 0; t < comparison.tasks.size(); ++t) {
    const GroupResult& result = task_group(comparison, t);
    text += concat("| ", cell_text(comparison.tasks[t].name), " | ", comparison.num_ids[t], " | ",
                   points(report.tasks[t].chance), " | ", points(report.tasks[t].majority), " |");
    for (const std::size_t m : order)
      text += concat(" ", points(result.scores[m].value), mark(result, m, reference), " |");
    text += "\n";
  }
  return text;
}

}  // namespace skein
