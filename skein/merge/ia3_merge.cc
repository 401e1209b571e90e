#include "skein/merge/ia3_merge.h"

#include <map>

#include "skein/base/concat.h"
#include "skein/io/safetensors.h"
#include "skein/merge/adapter_parameters.h"
#include "skein/merge/delta_merge.h"
#include "skein/merge/ia3_file.h"
#include "skein/merge/methods/methods.h"  // choice
#include "skein/merge/plan.h"             // method_of, check_parameter_names

namespace skein::merge {
namespace {

// One module's vectors, an adapter each; empty where it leaves the module alone.
struct Vectors {
  Shape shape;  // (D_out, 1), or (1, D_in) where the input is scaled
  std::vector<std::vector<float>> of_adapter;

  std::size_t size() const { return static_cast<std::size_t>(shape[0] * shape[1]); }
};
using Modules = std::map<std::string, Vectors>;

Status gather(const Ia3File& file, std::size_t adapter, std::size_t num_adapters, Modules& modules) {
  for (const auto& [module, vector] : file.modules) {
    Vectors& vectors = modules[module];
    if (vectors.of_adapter.empty()) vectors = {vector.shape, std::vector<std::vector<float>>(num_adapters)};
    if (vectors.shape != vector.shape) {
      return Error{concat(file.folder, ": ", printable(module), " has a vector ", to_string(vector.shape),
                          ", in another adapter ", to_string(vectors.shape), "; adapters of different bases")};
    }
    vectors.of_adapter[adapter] = vector.values;
  }
  return {};
}

std::vector<float> plain_sum(const Vectors& vectors, const MethodParameters& parameters) {
  std::vector<float> sum(vectors.size(), 0.0F);
  for (std::size_t i = 0; i < vectors.of_adapter.size(); ++i) {
    const auto weight = static_cast<float>(parameters.number("weight", static_cast<int>(i)));
    for (std::size_t at = 0; at < vectors.of_adapter[i].size(); ++at) sum[at] += weight * vectors.of_adapter[i][at];
  }
  return sum;
}

std::vector<std::vector<float>> less_one(const Vectors& vectors) {
  std::vector<std::vector<float>> deltas;
  for (const auto& own : vectors.of_adapter) {
    deltas.emplace_back(vectors.size(), 0.0F);
    for (std::size_t at = 0; at < own.size(); ++at) deltas.back()[at] = own[at] - 1;
  }
  return deltas;
}

Status write_vectors(Env& env, const std::string& folder, AdapterConfig config, const Modules& modules,
                     const std::map<std::string, std::vector<float>>& merged) {
  config.target_modules.clear();
  config.exclude_modules.clear();
  config.feedforward_modules.clear();
  config.target_is_regex = config.exclude_is_regex = config.feedforward_is_regex = false;
  std::vector<NamedTensor> tensors;
  for (const auto& [module, vectors] : modules) {
    config.target_modules.push_back(module);
    if (vectors.shape[0] == 1) config.feedforward_modules.push_back(module);
    tensors.push_back({concat("base_model.model.", module, ".ia3_l"),
                       {DType::kF32, vectors.shape, std::as_bytes(std::span(merged.at(module)))}});
  }
  SKEIN_TRY(write_safetensors(env, join_path(folder, "adapter_model.safetensors"), tensors, {{"format", "pt"}}));
  return write_text_atomically(env, join_path(folder, "adapter_config.json"),
                               adapter_config_to_json(config).dump(2) + "\n");
}

}  // namespace

Result<MergedAdapter> merge_ia3(Env& env, const Recipe& recipe, std::uint64_t seed,
                                const std::vector<std::string>& adapter_folders, const std::string& folder,
                                std::vector<std::string>& warnings) {
  SKEIN_ASSIGN(const MethodInfo* known, method_of(recipe));
  MethodInfo method = *known;
  method.parameters.push_back(choice("convention", {"exact", "peft"}, "around ones, or PEFT's plain sum"));
  SKEIN_TRY(check_parameter_names(recipe, method, warnings));
  const auto num_adapters = static_cast<int>(adapter_folders.size());
  if (num_adapters < method.min_models || num_adapters > method.max_models) {
    return Error{concat(recipe.path, ", line ", recipe.line, ": ", method.name, " does not take ", num_adapters,
                        " adapters without a base")};
  }
  Modules modules;
  AdapterConfig config;
  for (std::size_t i = 0; i < adapter_folders.size(); ++i) {
    SKEIN_ASSIGN(const Ia3File file, read_ia3_file(env, adapter_folders[i]));
    SKEIN_TRY(gather(file, i, adapter_folders.size(), modules));
    if (i == 0) config = file.config;
  }
  std::vector<std::string> names;
  for (const auto& [module, vectors] : modules) names.push_back(module);
  SKEIN_ASSIGN(const std::vector<MethodParameters> parameters, resolve_by_module(recipe, method, names, warnings));

  std::map<std::string, std::vector<float>> merged;
  if (!parameters.empty() && parameters[0].choice("convention") == "peft") {
    if (method.name != "linear") {
      return Error{concat(recipe.path, ": PEFT merges (IA)3 by a weighted sum only: linear")};
    }
    for (std::size_t at = 0; at < names.size(); ++at) merged[names[at]] = plain_sum(modules[names[at]], parameters[at]);
  } else {
    std::vector<TensorJob> jobs;
    for (std::size_t at = 0; at < names.size(); ++at) {
      jobs.push_back({.name = names[at] + ".ia3_l",
                      .shape = {static_cast<std::int64_t>(modules[names[at]].size())},
                      .num_models = num_adapters,
                      .parameters = &parameters[at],
                      .seed = seed});
    }
    SKEIN_TRY(merge_deltas(
        method, std::move(jobs), [&](std::size_t at) { return less_one(modules[names[at]]); },
        [&](std::size_t at, std::vector<float> deltas) -> Status {
          for (float& value : deltas) value += 1;
          merged[names[at]] = std::move(deltas);
          return {};
        }));
  }
  if (recipe.base_model) config.base_model_name_or_path = recipe.base_model->path;
  SKEIN_TRY(write_vectors(env, folder, std::move(config), modules, merged));
  MergedAdapter report{.num_adapters = adapter_folders.size()};
  for (const std::string& name : names) report.modules.push_back({.module = name});
  return report;
}

}  // namespace skein::merge
