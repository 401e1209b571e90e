#include "skein/merge/stages.h"

namespace skein::merge {

Result<RecipeFile> read_recipe_file(Env& env, const std::string& path) {
  RecipeFile file;
  SKEIN_ASSIGN(file.text, read_text_file(env, path, 4 << 20));
  SKEIN_ASSIGN(file.stages, parse_recipes(file.text, path));
  SKEIN_ASSIGN(file.order, stage_order(file.stages));
  return file;
}

void for_each_model(Recipe& recipe, const std::function<void(ModelRef&)>& each) {
  if (recipe.base_model) each(*recipe.base_model);
  for (auto& module : recipe.modules) {
    for (auto& input : module.models) each(input.model);
    for (auto& slice : module.slices) {
      if (slice.base_model) each(*slice.base_model);
      for (auto& source : slice.sources) each(source.model);
    }
  }
  if (!recipe.tokenizer) return;
  each(recipe.tokenizer->model);
  for (auto& [token, row] : recipe.tokenizer->tokens) each(row.model);
}

Recipe with_folders(Recipe recipe, const std::map<std::string, std::string>& stage_folders) {
  const auto replace = [&](std::string& name, const std::string& revision) {
    const auto found = stage_folders.find(name);
    if (found != stage_folders.end() && revision.empty()) name = found->second;
  };
  for_each_model(recipe, [&](ModelRef& model) {
    replace(model.path, model.revision);
    replace(model.adapter, model.adapter_revision);
  });
  return recipe;
}

Result<std::unique_ptr<Stage>> plan_stage(Env& env, Recipe recipe, const MergeRequest& request,
                                          const PlannedStages& planned) {
  auto stage = std::make_unique<Stage>();
  stage->recipe = std::move(recipe);
  SKEIN_ASSIGN(auto sources, open_inputs(env, stage->recipe, planned));
  SKEIN_ASSIGN(stage->alignment, InputAlignment::make(env, stage->recipe, sources, request.truncate_embeddings));
  const PlanOptions options{
      .shard_bytes = request.shard_bytes, .seed = request.seed, .num_workers = request.num_threads};
  SKEIN_ASSIGN(stage->plan, make_plan(stage->recipe, std::move(sources), options,
                                      [&](OutputTensor& tensor) { return stage->alignment->adjust(tensor); }));
  return stage;
}

}  // namespace skein::merge
