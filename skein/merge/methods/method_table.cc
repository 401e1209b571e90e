#include "skein/merge/methods/methods.h"

namespace skein::merge {

const std::vector<MethodInfo>& all_methods() {
  static const std::vector<MethodInfo> methods = [] {
    std::vector<MethodInfo> all;
    for (auto* table : {linear_methods, task_arithmetic_methods, della_methods, spherical_methods, model_stock_methods,
                        sce_methods, elementwise_methods, arcee_fusion_methods, singular_methods, wudi_methods,
                        knots_methods, task_mask_methods}) {
      for (MethodInfo& method : table()) all.push_back(std::move(method));
    }
    return all;
  }();
  return methods;
}

const MethodInfo* find_method(std::string_view name) {
  for (const MethodInfo& method : all_methods()) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

}  // namespace skein::merge
