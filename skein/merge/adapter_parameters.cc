#include "skein/merge/adapter_parameters.h"

#include <algorithm>
#include <map>

#include "skein/merge/layer_name.h"
#include "skein/merge/parameters.h"

namespace skein::merge {

Result<std::vector<MethodParameters>> resolve_by_module(const Recipe& recipe, const MethodInfo& method,
                                                        const std::vector<std::string>& modules,
                                                        std::vector<std::string>& warnings) {
  std::map<std::string, std::int64_t> num_layers;  // of a stack
  for (const std::string& module : modules) {
    if (const auto layer = split_layer_name(module)) {
      auto& count = num_layers[layer->stack];
      count = std::max(count, layer->layer + 1);
    }
  }
  ParameterResolver resolver(recipe, method);
  std::vector<MethodParameters> resolved;
  for (const std::string& module : modules) {
    TensorInputs tensor{.name = module + ".weight"};
    if (const auto layer = split_layer_name(module)) {
      const std::int64_t count = num_layers[layer->stack];
      tensor.t = count > 1 ? static_cast<double>(layer->layer) / static_cast<double>(count - 1) : 1;
    }
    tensor.module = &recipe.modules[0].parameters;
    for (const InputModel& input : recipe.modules[0].models) {
      tensor.inputs.push_back(
          {.source = static_cast<int>(tensor.inputs.size()), .name = tensor.name, .own = &input.parameters});
    }
    std::vector<const TensorInput*> models;
    for (const TensorInput& input : tensor.inputs) models.push_back(&input);
    SKEIN_ASSIGN(MethodParameters parameters, resolver.resolve(tensor, models));
    resolved.push_back(std::move(parameters));
  }
  for (const std::string& sentence : resolver.unused_filters()) warnings.push_back(sentence);
  return resolved;
}

}  // namespace skein::merge
