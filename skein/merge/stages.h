// The stages of a recipe file: read, and each opened and planned.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/merge/input_alignment.h"
#include "skein/merge/plan.h"
#include "skein/merge/planned_source.h"
#include "skein/merge/recipe.h"
#include "skein/merge/run_merge.h"

namespace skein::merge {

struct RecipeFile {
  std::string text;
  std::vector<Recipe> stages;
  std::vector<std::size_t> order;  // those that are needed, the result last
};
Result<RecipeFile> read_recipe_file(Env& env, const std::string& path);

// Every reference of a recipe to a model.
void for_each_model(Recipe& recipe, const std::function<void(ModelRef&)>& each);
// The recipe with the names of finished stages, models or adapters, replaced by their folders.
Recipe with_folders(Recipe recipe, const std::map<std::string, std::string>& stage_folders);

// Of all that decides the result of several stages but the bytes of weights from outside (their headers count): by this
// a finished result is known without its stages. An input that is missing is an error. Empty for a single stage.
Result<std::string> digest_of_stages(Env& env, const RecipeFile& file, const MergeRequest& request);

// A recipe with everything opened that its stage is made of.
struct Stage {
  Recipe recipe;
  std::unique_ptr<InputAlignment> alignment;
  std::unique_ptr<Plan> plan;
};
// planned: earlier stages that are not made, for a dry run.
Result<std::unique_ptr<Stage>> plan_stage(Env& env, Recipe recipe, const MergeRequest& request,
                                          const PlannedStages& planned = {});

}  // namespace skein::merge
