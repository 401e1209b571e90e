#include "skein/merge/parameters.h"

#include <algorithm>
#include <functional>

#include "skein/base/concat.h"
#include "skein/base/nearest_word.h"
#include "skein/merge/plan.h"

namespace skein::merge {
namespace {

// Every setting of a recipe; of_models: under a model or a slice's source, where global parameters are never looked
// for.
void for_each_setting(const Recipe& recipe,
                      const std::function<void(const std::string&, const Setting&, bool of_models)>& each) {
  const auto walk = [&](const Settings& settings, bool of_models) {
    for (const auto& [name, setting] : settings) each(name, setting, of_models);
  };
  walk(recipe.parameters, false);
  for (const auto& module : recipe.modules) {
    walk(module.parameters, false);
    for (const auto& input : module.models) walk(input.parameters, true);
    for (const auto& slice : module.slices) {
      walk(slice.parameters, false);
      for (const auto& source : slice.sources) walk(source.parameters, true);
    }
  }
}

const ParameterSpec* find_spec(const MethodInfo& method, const std::string& name) {
  const auto found = std::find_if(method.parameters.begin(), method.parameters.end(),
                                  [&](const auto& spec) { return spec.name == name; });
  return found == method.parameters.end() ? nullptr : &*found;
}

}  // namespace

std::optional<ParameterValue> ParameterResolver::look_up(const ParameterSpec& spec,
                                                         const std::vector<const Settings*>& levels,
                                                         const std::string& name, double t, int& line) {
  for (const Settings* level : levels) {
    if (level == nullptr) continue;
    const auto found = level->find(spec.name);
    if (found == level->end()) continue;
    line = found->second.line;
    for (const auto& one : found->second.cases) {
      if (one.filter.empty() || one.filter == "*" || name.find(one.filter) != std::string::npos) {
        used_.emplace(&found->second, one.filter);
        break;
      }
    }
    auto value = value_at(found->second, spec.kind, name, t);
    if (!value) continue;
    // mergekit takes true for 1 where a number is expected.
    if (const auto* flag = std::get_if<bool>(&*value); flag != nullptr && spec.kind == ParameterSpec::Kind::kNumber) {
      value = *flag ? 1.0 : 0.0;
    }
    return value;
  }
  return std::nullopt;
}

Result<MethodParameters> ParameterResolver::resolve(const TensorInputs& tensor,
                                                    const std::vector<const TensorInput*>& models) {
  MethodParameters parameters(method_, static_cast<int>(models.size()));
  const auto placed = [&](const Status& status, int line) -> Status {
    if (status.ok()) return {};
    return Error{concat(recipe_.path, ", line ", line, ": ", status.error().message), ErrorKind::kFailed};
  };
  for (const auto& spec : method_.parameters) {
    int line = recipe_.line;
    if (spec.scope == ParameterSpec::Scope::kGlobal) {
      const auto value = look_up(spec, {tensor.slice, tensor.module, &recipe_.parameters}, tensor.name, tensor.t, line);
      if (value) SKEIN_TRY(placed(parameters.set(spec.name, *value), line));
      continue;
    }
    for (std::size_t i = 0; i < models.size(); ++i) {
      const auto value = look_up(spec, {models[i]->own, tensor.slice, tensor.module, &recipe_.parameters},
                                 models[i]->name, tensor.t, line);
      if (value) SKEIN_TRY(placed(parameters.set(spec.name, static_cast<int>(i), *value), line));
    }
  }
  if (const Status complete = parameters.check_complete(); !complete.ok()) {
    return Error{concat(recipe_.path, ", line ", recipe_.line, ": ", complete.error().message,
                        "; none holds for tensor ", printable(tensor.name))};
  }
  return parameters;
}

std::vector<std::string> ParameterResolver::unused_filters() const {
  std::vector<std::string> sentences;
  for_each_setting(recipe_, [&](const std::string& name, const Setting& setting, bool) {
    if (find_spec(method_, name) == nullptr) return;
    for (const auto& one : setting.cases) {
      if (one.filter.empty() || one.filter == "*" || used_.contains({&setting, one.filter})) continue;
      sentences.push_back(concat(recipe_.path, ", line ", setting.line, ": the filter \"", printable(one.filter),
                                 "\" of ", name, " decides for no tensor"));
    }
  });
  return sentences;
}

Status check_parameter_names(const Recipe& recipe, const MethodInfo& method, std::vector<std::string>& warnings) {
  Status status;
  for_each_setting(recipe, [&](const std::string& name, const Setting& setting, bool of_models) {
    if (!status.ok()) return;
    const std::string where = concat(recipe.path, ", line ", setting.line, ": ");
    const ParameterSpec* spec = find_spec(method, name);
    if (spec != nullptr) {
      if (of_models && spec->scope == ParameterSpec::Scope::kGlobal) {
        warnings.push_back(concat(
            where, name, " has no effect at a model: it holds for all of them; move it to the parameters below"));
      }
      return;
    }
    const auto& methods = all_methods();
    const auto knows = [&](const MethodInfo& other) { return find_spec(other, name) != nullptr; };
    if (const auto other = std::find_if(methods.begin(), methods.end(), knows); other != methods.end()) {
      warnings.push_back(
          concat(where, name, " has no effect: it is a parameter of ", other->name, ", not of ", method.name));
      return;
    }
    std::vector<std::string> known;
    for (const auto& one : method.parameters) known.push_back(one.name);
    const auto nearest = nearest_word(name, known);
    status = Error{concat(where, "unknown parameter \"", printable(name), "\" of ", method.name,
                          nearest ? concat("; did you mean ", *nearest, "?") : std::string())};
  });
  return status;
}

Result<const MethodInfo*> method_of(const Recipe& recipe) {
  if (const MethodInfo* method = find_method(recipe.merge_method)) return method;
  std::vector<std::string> names;
  std::string list;
  for (const auto& method : all_methods()) {
    names.push_back(method.name);
    list += (list.empty() ? "" : ", ") + method.name;
  }
  const auto nearest = nearest_word(recipe.merge_method, names);
  return Error{concat(recipe.path, ", line ", recipe.line, ": unknown merge_method \"", printable(recipe.merge_method),
                      "\"", nearest ? concat("; did you mean ", *nearest, "?") : concat("; one of: ", list))};
}

}  // namespace skein::merge
