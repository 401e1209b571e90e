// A comparison as a file: which methods answer which tasks. Format: docs/formats/plan.md.
//
// Methods are kept as words of a command line (--router phatgoose --top-k 2), so that a plan knows every option that
// skein eval knows, and no list of them stands here. Torch-free.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"

namespace skein {

struct PlanTask {
  std::vector<std::string> data;
  std::string name;  // empty: the examples' own
  std::string category, metric, own_expert;
  bool is_held_in = false;
  std::int64_t limit = 0;      // ids; 0: all
  std::int64_t templates = 0;  // wordings of each id, the first in the file; 0: all
};

struct PlanMethod {
  enum class Kind { kModel, kEveryExpert, kMerge } kind = Kind::kModel;
  std::string name;  // unique; of kEveryExpert empty
  std::vector<std::string>
      flags;           // kModel: options as typed, without --base and --library unless the method has its own
  std::string recipe;  // kMerge
  int line = 0;
};

// One parameter of a merge method: several values are a choice made on held-in tasks.
struct MergeParameter {
  std::string name;
  std::vector<std::string> values;
};

struct MergeGrid {
  std::vector<std::string> bases;
  std::vector<std::pair<std::string, std::string>> experts;  // name, checkpoint
  struct Method {
    std::string name;
    std::vector<MergeParameter> parameters;
  };
  std::vector<Method> methods;
  std::vector<std::int64_t> counts, seeds;
  std::string dtype = "bfloat16";
};

struct Plan {
  std::string path, text;
  std::string base, library, reference;
  std::string scoring = "phatgoose", over_templates = "mean", separator = "\n";
  std::vector<std::string> stop;
  std::int64_t limit = 0, templates = 0, max_new_tokens = 32, max_input = 512, max_target = 512, resamples = 10000;
  std::uint64_t seed = 0;
  bool chat = false;
  std::vector<PlanTask> tasks;
  std::vector<PlanMethod> methods;
  MergeGrid merging;  // no counts: none
};

// Errors name the line: an unknown key, a value of another kind, a name that stands twice, a reference that is no
// method.
Result<Plan> read_plan(Env& env, const std::string& path);

// `count` of the experts for one selection, in their own order: places in grid.experts. The same on every machine.
std::vector<std::size_t> select_experts(std::size_t num_experts, std::size_t count, std::uint64_t seed);

// One merge of the grid, its choices still open.
struct MergeCell {
  std::string name, base;
  std::size_t method = 0;
  std::vector<std::size_t> experts;
};
// All cells, those that coincide once.
std::vector<MergeCell> merge_cells(const MergeGrid& grid);
// The settings a cell chooses among: every combination of its method's values, one value per parameter.
std::vector<std::vector<std::string>> merge_settings(const MergeGrid::Method& method);
// The recipe (mergekit's grammar) of a cell under one setting.
std::string merge_recipe(const MergeGrid& grid, const MergeCell& cell, const std::vector<std::string>& setting);

}  // namespace skein
