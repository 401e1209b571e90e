#include "skein/merge/stages.h"

#include <set>

#include "skein/base/concat.h"
#include "skein/io/digest.h"

namespace skein::merge {
namespace {

// Headers of weights, and the small files that say what a model is, whole.
Status add_folder(Env& env, const std::string& folder, Digest& digest) {
  SKEIN_ASSIGN(const FileFacts facts, env.facts(folder));
  if (!facts.is_folder) return {};
  SKEIN_ASSIGN(const auto names, env.list(folder));
  for (const auto& name : names) {
    const std::string path = join_path(folder, name);
    if (name.ends_with(".safetensors")) {
      SKEIN_ASSIGN(const auto file, env.open(path));
      SKEIN_ASSIGN(const InputFile input, describe_input_file(env, path, *file));
      digest.update(concat(name, " ", input.facts.size_bytes, " ", input.header_digest));
    } else if (name.ends_with(".json")) {
      SKEIN_ASSIGN(const std::string content, digest_of_file(env, path));
      digest.update(concat(name, " ", content));
    }
  }
  return {};
}

}  // namespace

Result<RecipeFile> read_recipe_file(Env& env, const std::string& path) {
  RecipeFile file;
  SKEIN_ASSIGN(file.text, read_text_file(env, path, 4 << 20));
  SKEIN_ASSIGN(file.stages, parse_recipes(file.text, path));
  SKEIN_ASSIGN(file.order, stage_order(file.stages));
  return file;
}

Result<std::string> digest_of_stages(Env& env, const RecipeFile& file, const MergeRequest& request) {
  if (file.order.size() < 2) return std::string();
  std::set<std::string> stages;
  for (const std::size_t i : file.order) stages.insert(file.stages[i].name);
  Digest digest;
  digest.update(concat("skein merge stages 1 seed ", request.seed, " shard ", request.shard_bytes, " cut ",
                       request.truncate_embeddings));
  digest.update(file.text);
  for (const std::size_t i : file.order) {
    const Recipe& recipe = file.stages[i];
    const auto add = [&](const std::string& name, const std::string& revision) -> Status {
      if (name.empty() || (revision.empty() && stages.contains(name))) return {};
      SKEIN_ASSIGN(const std::string folder, resolve_model_path(env, name, revision, parent_folder(recipe.path)));
      digest.update(name);
      return add_folder(env, folder, digest);
    };
    for (const ModelRef& model : recipe.models()) {
      SKEIN_TRY(add(model.path, model.revision));
      SKEIN_TRY(add(model.adapter, model.adapter_revision));
    }
  }
  return digest.hex();
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
