// The tables of methods, one function per file of methods; method_table.cc puts them together.
#pragma once

#include <vector>

#include "skein/merge/method.h"

namespace skein::merge {

std::vector<MethodInfo> linear_methods();           // linear, passthrough
std::vector<MethodInfo> task_arithmetic_methods();  // task_arithmetic, ties, dare_*, breadcrumbs*
std::vector<MethodInfo> della_methods();            // della, della_linear
std::vector<MethodInfo> spherical_methods();        // slerp, nuslerp, multislerp, karcher
std::vector<MethodInfo> model_stock_methods();
std::vector<MethodInfo> sce_methods();
std::vector<MethodInfo> elementwise_methods();  // nearswap, ram, ramplus_tl
std::vector<MethodInfo> arcee_fusion_methods();
std::vector<MethodInfo> singular_methods();  // tsv_m, iso_c, iso_cts
std::vector<MethodInfo> wudi_methods();
std::vector<MethodInfo> knots_methods();
std::vector<MethodInfo> task_mask_methods();  // emr, consensus

// The parameters of methods on task vectors, with the defaults of `normalize` and `rescale`.
std::vector<ParameterSpec> task_parameters(bool normalize, bool sparse, bool rescale, bool elects);

// Short forms for the tables.
inline ParameterSpec per_model_number(std::string name, std::optional<double> fallback, std::string meaning) {
  ParameterSpec spec{.name = std::move(name), .scope = ParameterSpec::Scope::kPerModel, .meaning = std::move(meaning)};
  if (fallback) spec.fallback = *fallback;
  spec.required = !fallback;
  return spec;
}
inline ParameterSpec number(std::string name, std::optional<double> fallback, std::string meaning) {
  ParameterSpec spec = per_model_number(std::move(name), fallback, std::move(meaning));
  spec.scope = ParameterSpec::Scope::kGlobal;
  return spec;
}
inline ParameterSpec flag(std::string name, bool fallback, std::string meaning) {
  return {
      .name = std::move(name), .kind = ParameterSpec::Kind::kBool, .fallback = fallback, .meaning = std::move(meaning)};
}
// The first choice is the fallback unless another is named.
inline ParameterSpec choice(std::string name, std::vector<std::string> choices, std::string meaning) {
  ParameterSpec spec{.name = std::move(name),
                     .kind = ParameterSpec::Kind::kChoice,
                     .fallback = choices[0],
                     .meaning = std::move(meaning)};
  spec.choices = std::move(choices);
  return spec;
}

}  // namespace skein::merge
