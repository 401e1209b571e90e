// A comparison as the data of its report: one JSON document that the page, comparison.json and table.md are made of.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "skein/eval/comparison.h"
#include "skein/io/json.h"

namespace skein {

struct ReportMethod {
  std::string words;               // what it is, for tooltips
  bool uses_answers = false;       // chosen with the answers in sight: best individual, oracle
  double seconds_per_example = 0;  // 0: not measured
  double relative_time = 0;        // to the reference
  double added_megabytes = 0;      // weights beside the base's
};

struct ReportTask {
  double chance = 0, majority = 0;
};

// A cell of the grid of merges: a method of the comparison, and the tasks of the experts in it.
struct ReportCell {
  std::size_t method = 0;
  std::string line;  // what is drawn as one line: merge method, and the base if there are several
  std::int64_t count = 0;
  std::string setting;               // the chosen parameters
  std::vector<std::size_t> held_in;  // places in Comparison::tasks
};

// Routing of one method: per task what routing_map() gave (null where it was not followed).
struct ReportRouting {
  std::size_t method = 0;
  std::vector<Json> maps;
};

struct Report {
  const Comparison& comparison;
  std::string reference, base, scoring, plan;
  std::vector<ReportMethod> methods;
  std::vector<ReportTask> tasks;
  std::vector<ReportCell> cells;
  std::vector<ReportRouting> routing;
  std::vector<std::string> oracle;  // per task the expert that is best on it; empty: not known
  std::vector<std::pair<std::string, std::string>> settings;
  Json examples;  // null: left out
};

// The page's data. Its numbers are comparison.json (without plan and examples).
Json report_json(const Report& report);
// Methods x sets of tasks, then tasks x methods, as Markdown.
std::string report_table(const Report& report);

}  // namespace skein
