// A recipe planned, stage upon stage, and told.
#include "skein/base/concat.h"
#include "skein/merge/adapter_merge.h"
#include "skein/merge/merge_description.h"
#include "skein/merge/output_files.h"
#include "skein/merge/run_adapter_merge.h"
#include "skein/merge/run_merge.h"
#include "skein/merge/stages.h"

namespace skein::merge {
namespace {

// A stage that gives an adapter, named as if it were a model, as the adapter it is.
Recipe with_planned_adapters(Recipe recipe, const PlannedStages& planned) {
  for_each_model(recipe, [&](ModelRef& model) {
    if (!model.adapter.empty() || !planned.adapters.contains(model.path)) return;
    model.adapter = std::move(model.path);
    model.path.clear();
  });
  return recipe;
}

// A planned stage whose tokenizer would be needed to plan this one; empty: none.
std::string stage_with_its_vocabulary(const Recipe& recipe, const PlannedStages& planned) {
  if (!recipe.tokenizer) return {};
  for (const ModelRef& model : recipe.models()) {
    if (model.revision.empty() && planned.models.contains(model.path)) return model.path;
  }
  return {};
}

}  // namespace

Result<DryRun> dry_run(Env& env, const MergeRequest& request) {
  SKEIN_ASSIGN(const RecipeFile parsed, read_recipe_file(env, request.recipe_path));
  PlannedStages planned;
  std::vector<std::unique_ptr<Stage>> stages;  // `planned` points into their plans
  DryRun all{"", {{"stages", Json::array()}}};
  for (const std::size_t index : parsed.order) {
    const Recipe recipe = with_planned_adapters(parsed.stages[index], planned);
    SKEIN_ASSIGN(const bool adapters, merges_adapters(env, recipe));
    DryRun one;
    if (adapters) {
      SKEIN_ASSIGN(one, describe_adapter_merge(env, recipe, planned.adapters));
      planned.adapters.insert(recipe.name);
    } else if (const std::string needed = stage_with_its_vocabulary(recipe, planned); !needed.empty()) {
      return Error{concat(recipe.path, ", line ", recipe.tokenizer->line, ": the vocabulary of the stage \"",
                          printable(needed), "\" is known when it is made; --dry-run cannot plan this stage")};
    } else {
      SKEIN_ASSIGN(auto stage, plan_stage(env, recipe, request, planned));
      SKEIN_ASSIGN(const MemoryPlan memory, plan_memory(*stage->plan, request.memory_bytes, request.num_threads));
      if (request.on_warning) {
        for (const auto& warning : stage->plan->warnings) request.on_warning(warning);
      }
      one = {plan_as_text(*stage->plan, memory), plan_as_json(*stage->plan, memory)};
      SKEIN_ASSIGN(Json config, output_config(*stage->plan, stage->alignment->vocabulary()));
      planned.models[recipe.name] = {stage->plan.get(), std::move(config)};
      stages.push_back(std::move(stage));
    }
    if (parsed.order.size() == 1) return one;
    const bool is_result = index == parsed.order.back();
    all.text += is_result ? "\nresult\n" : concat("stage       ", printable(recipe.name), ", removed at the end\n");
    all.text += one.text;
    if (!is_result) one.json["stage"] = recipe.name;
    all.json["stages"].push_back(std::move(one.json));
  }
  return all;
}

}  // namespace skein::merge
