// From what a recipe says at its levels to the values that hold for one tensor.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "skein/base/result.h"
#include "skein/merge/method.h"
#include "skein/merge/recipe.h"
#include "skein/merge/tensor_inputs.h"

namespace skein::merge {

// mergekit's precedence: slice source or model, slice, module, top level for a model's values; slice, module, top level
// for global ones. A level whose filters do not fit the tensor's name is passed over. Filters of a model's values see
// the input tensor's name, those of global ones the output's.
class ParameterResolver {
 public:
  ParameterResolver(const Recipe& recipe, const MethodInfo& method) : recipe_(recipe), method_(method) {}

  // models: those of tensor.inputs that are the method's models, in order.
  Result<MethodParameters> resolve(const TensorInputs& tensor, const std::vector<const TensorInput*>& models);

  // Filters of the recipe that fitted no tensor so far, as sentences: often a misspelt name.
  std::vector<std::string> unused_filters() const;

 private:
  std::optional<ParameterValue> look_up(const ParameterSpec& spec, const std::vector<const Settings*>& levels,
                                        const std::string& name, double t, int& line);

  const Recipe& recipe_;
  const MethodInfo& method_;
  std::set<std::pair<const Setting*, std::string>> used_;  // setting, filter
};

}  // namespace skein::merge
