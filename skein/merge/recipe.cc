#include "skein/merge/recipe.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "skein/base/concat.h"

namespace skein::merge {
namespace {

std::optional<double> as_number(const ParameterValue& value) {
  if (const auto* number = std::get_if<double>(&value)) return *number;
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? 1.0 : 0.0;
  return std::nullopt;
}

}  // namespace

std::optional<ParameterValue> value_at(const Setting& setting, ParameterSpec::Kind kind, const std::string& tensor_name,
                                       double t) {
  const auto fits = [&](const Setting::Case& one) {
    return one.filter.empty() || one.filter == "*" || tensor_name.find(one.filter) != std::string::npos;
  };
  const auto found = std::find_if(setting.cases.begin(), setting.cases.end(), fits);
  if (found == setting.cases.end() || found->values.empty()) return std::nullopt;
  const auto& values = found->values;
  if (values.size() == 1) return values[0];
  const double place = t * static_cast<double>(values.size() - 1);
  const auto lower = static_cast<std::size_t>(place);
  if (kind != ParameterSpec::Kind::kNumber) return values[lower];
  const std::size_t upper = std::min(values.size() - 1, lower + 1);
  const auto low = as_number(values[lower]), high = as_number(values[upper]);
  if (!low || !high) return values[lower];  // a word: MethodParameters::set says what is wrong with it
  const double share = place - static_cast<double>(lower);
  return (1 - share) * *low + share * *high;
}

std::vector<ModelRef> Recipe::models() const {
  std::vector<ModelRef> models;
  const auto add = [&](const ModelRef& model) {
    if (std::find(models.begin(), models.end(), model) == models.end()) models.push_back(model);
  };
  for (const auto& module : modules) {
    for (const auto& input : module.models) add(input.model);
    for (const auto& slice : module.slices) {
      for (const auto& source : slice.sources) add(source.model);
    }
  }
  for (const auto& module : modules) {
    for (const auto& slice : module.slices) {
      if (slice.base_model) add(*slice.base_model);
    }
  }
  if (base_model) add(*base_model);
  return models;
}

namespace {

// Depth first; `path` holds the stages being entered, so that a circle is seen.
class StageWalk {
 public:
  explicit StageWalk(const std::vector<Recipe>& recipes) : recipes_(recipes) {}

  Status visit(std::size_t stage) {
    if (done_.contains(stage)) return {};
    if (!entered_.insert(stage).second) {
      return Error{concat(recipes_[stage].path, ", line ", recipes_[stage].line, ": the stage \"",
                          printable(recipes_[stage].name), "\" needs its own result")};
    }
    for (const ModelRef& model : recipes_[stage].models()) {
      if (model.revision.empty()) SKEIN_TRY(visit_named(model.path));
      if (model.adapter_revision.empty()) SKEIN_TRY(visit_named(model.adapter));
    }
    done_.insert(stage);
    order.push_back(stage);
    return {};
  }

  std::vector<std::size_t> order;

 private:
  Status visit_named(const std::string& name) {
    const auto has_name = [&](const Recipe& other) { return !name.empty() && other.name == name; };
    const auto needed = std::find_if(recipes_.begin(), recipes_.end(), has_name);
    return needed == recipes_.end() ? Status() : visit(static_cast<std::size_t>(needed - recipes_.begin()));
  }

  const std::vector<Recipe>& recipes_;
  std::set<std::size_t> entered_, done_;
};

}  // namespace

Result<std::vector<std::size_t>> stage_order(const std::vector<Recipe>& recipes) {
  SKEIN_CHECK(!recipes.empty());
  std::set<std::string> names;
  std::size_t result = recipes.size() - 1;
  bool has_unnamed = false;
  for (std::size_t i = 0; i < recipes.size(); ++i) {
    const Recipe& recipe = recipes[i];
    const std::string where = concat(recipe.path, ", line ", recipe.line);
    if (recipe.name.empty()) {
      if (has_unnamed) return Error{concat(where, ": a second document without a name; only the result has none")};
      has_unnamed = true;
      result = i;
    } else if (!names.insert(recipe.name).second) {
      return Error{concat(where, ": a second document named \"", printable(recipe.name), "\"")};
    }
  }
  StageWalk walk(recipes);
  SKEIN_TRY(walk.visit(result));
  return walk.order;
}

}  // namespace skein::merge
