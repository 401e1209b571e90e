// Recipes from strangers: YAML, grammar, settings, order of stages.
#include "skein/merge/recipe.h"

#include <cstdint>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace skein::merge;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto recipes = parse_recipes(text, "input");
  if (!recipes.ok()) return 0;
  (void)stage_order(*recipes);
  for (const auto& recipe : *recipes) {
    (void)recipe.models();
    for (const auto& [name, setting] : recipe.parameters) {
      for (const double t : {0.0, 0.3, 1.0}) {
        (void)value_at(setting, ParameterSpec::Kind::kNumber, "model.layers.0.mlp.up_proj.weight", t);
        (void)value_at(setting, ParameterSpec::Kind::kBool, name, t);
      }
    }
  }
  return 0;
}
