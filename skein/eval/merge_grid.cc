// The cells of a plan's grid of merges.
#include <algorithm>
#include <numeric>
#include <set>

#include "skein/base/concat.h"
#include "skein/eval/plan.h"
#include "skein/eval/statistics.h"

namespace skein {
namespace {

// A YAML double-quoted scalar: paths may hold anything.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string with_base(std::string checkpoint, const std::string& base) {
  constexpr std::string_view kBase = "{base}";
  for (std::size_t at = 0; (at = checkpoint.find(kBase, at)) != std::string::npos; at += base.size())
    checkpoint.replace(at, kBase.size(), base);
  return checkpoint;
}

}  // namespace

std::vector<std::size_t> select_experts(std::size_t num_experts, std::size_t count, std::uint64_t seed) {
  std::vector<std::size_t> order(num_experts);
  std::iota(order.begin(), order.end(), 0);
  Resampler random(seed, "experts", num_experts);
  for (std::size_t i = 0; i < count; ++i) std::swap(order[i], order[i + random.below(num_experts - i)]);
  order.resize(count);
  std::sort(order.begin(), order.end());
  return order;
}

std::vector<MergeCell> merge_cells(const MergeGrid& grid) {
  std::vector<MergeCell> cells;
  std::set<std::tuple<std::string, std::size_t, std::vector<std::size_t>>> seen;
  for (const std::string& base : grid.bases) {
    for (std::size_t m = 0; m < grid.methods.size(); ++m) {
      for (const std::int64_t count : grid.counts) {
        for (const std::int64_t seed : grid.seeds) {
          const auto experts =
              select_experts(grid.experts.size(), static_cast<std::size_t>(count), static_cast<std::uint64_t>(seed));
          if (!seen.emplace(base, m, experts).second) continue;
          std::string name =
              concat(grid.methods[m].name, ", ", count, " of ", grid.experts.size(), " experts, seed ", seed);
          if (grid.bases.size() > 1) name += ", " + base_name(base);
          cells.push_back({std::move(name), base, m, experts});
        }
      }
    }
  }
  return cells;
}

std::vector<std::vector<std::string>> merge_settings(const MergeGrid::Method& method) {
  std::vector<std::vector<std::string>> settings = {{}};
  for (const MergeParameter& parameter : method.parameters) {
    std::vector<std::vector<std::string>> longer;
    for (const auto& setting : settings) {
      for (const std::string& value : parameter.values) {
        longer.push_back(setting);
        longer.back().push_back(value);
      }
    }
    settings = std::move(longer);
  }
  return settings;
}

std::string merge_recipe(const MergeGrid& grid, const MergeCell& cell, const std::vector<std::string>& setting) {
  const MergeGrid::Method& method = grid.methods[cell.method];
  // Parameters of each expert in mergekit's grammar; what else there is belongs to the merge as a whole.
  const auto is_per_model = [](const std::string& name) {
    return name == "weight" || name == "density" || name == "gamma" || name == "epsilon";
  };
  std::string recipe = concat("merge_method: ", method.name, "\nbase_model: ", quoted(cell.base),
                              "\ndtype: ", grid.dtype, "\nmodels:\n");
  std::string global;
  for (std::size_t p = 0; p < setting.size(); ++p) {
    if (!is_per_model(method.parameters[p].name))
      global += concat("  ", method.parameters[p].name, ": ", setting[p], "\n");
  }
  bool has_weight = false;
  for (const MergeParameter& parameter : method.parameters) has_weight = has_weight || parameter.name == "weight";
  for (const std::size_t e : cell.experts) {
    recipe += concat("  - model: ", quoted(with_base(grid.experts[e].second, cell.base)), "\n    parameters:\n");
    if (!has_weight) recipe += "      weight: 1.0\n";
    for (std::size_t p = 0; p < setting.size(); ++p) {
      if (is_per_model(method.parameters[p].name))
        recipe += concat("      ", method.parameters[p].name, ": ", setting[p], "\n");
    }
  }
  if (method.name == "linear") {  // an average of the experts: no base in it
    recipe.erase(recipe.find("base_model: "), recipe.find("dtype: ") - recipe.find("base_model: "));
  }
  return recipe + (global.empty() ? "" : "parameters:\n" + global);
}

}  // namespace skein
