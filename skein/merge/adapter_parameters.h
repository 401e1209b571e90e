// The parameters of a recipe for the modules of adapters: filters see "MODULE.weight", gradients run over the layers.
#pragma once

#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/merge/method.h"
#include "skein/merge/recipe.h"

namespace skein::merge {

// One per module. recipe.modules[0].models are the adapters. method outlives the result.
Result<std::vector<MethodParameters>> resolve_by_module(const Recipe& recipe, const MethodInfo& method,
                                                        const std::vector<std::string>& modules,
                                                        std::vector<std::string>& warnings);

}  // namespace skein::merge
