#include "skein/merge/run_adapter_merge.h"

#include "skein/base/concat.h"
#include "skein/io/digest.h"
#include "skein/io/output_folder.h"
#include "skein/merge/adapter_merge.h"
#include "skein/merge/manifest.h"

namespace skein::merge {
namespace {

constexpr char kWeights[] = "adapter_model.safetensors";

struct Inputs {
  std::vector<std::pair<std::string, std::string>> adapters;  // as the recipe names them; digest of their weights
  std::string plan_digest;                                    // of all that decides the output
};

Result<Inputs> inputs_of(Env& env, const Recipe& recipe, const std::string& recipe_text, std::uint64_t seed) {
  Inputs inputs;
  Digest digest;
  digest.update(concat("adapters ", seed, " ", recipe.name));
  digest.update(recipe_text);
  for (const ModelRef& ref : recipe.models()) {
    if (recipe.base_model && ref == *recipe.base_model) continue;
    SKEIN_ASSIGN(const std::string folder, adapter_folder_of(env, ref, recipe.path));
    SKEIN_ASSIGN(std::string weights, digest_of_file(env, join_path(folder, kWeights)));
    SKEIN_ASSIGN(const std::string config, digest_of_file(env, join_path(folder, "adapter_config.json")));
    digest.update(weights);
    digest.update(config);
    inputs.adapters.emplace_back(ref.text(), std::move(weights));
  }
  inputs.plan_digest = digest.hex();
  return inputs;
}

Result<MergeSummary> merge_on_root(Env& env, const MergeRequest& request, const Recipe& recipe,
                                   const std::string& recipe_text, const std::string& out,
                                   const std::string& stages_digest) {
  MergeSummary summary;
  summary.method = recipe.merge_method;
  summary.is_adapter = true;
  SKEIN_ASSIGN(const Inputs inputs, inputs_of(env, recipe, recipe_text, request.seed));
  summary.num_models = inputs.adapters.size();
  if (request.resume && plan_digest_of(env, out) == inputs.plan_digest) {
    summary.was_complete = true;
    return summary;
  }
  SKEIN_ASSIGN(const auto folder, OutputFolder::begin(env, out, request.overwrite || request.resume));
  std::vector<std::string> warnings = recipe.warnings;
  SKEIN_ASSIGN(const MergedAdapter merged, merge_adapters(env, recipe, request.seed, folder->path(), recipe_text,
                                                          "Skein " + request.version, warnings));
  SKEIN_ASSIGN(const FileFacts weights, env.facts(join_path(folder->path(), kWeights)));
  SKEIN_ASSIGN(Json manifest, make_adapter_manifest(env, folder->path(), recipe, recipe_text, request.seed,
                                                    inputs.plan_digest, inputs.adapters, request.version));
  if (!stages_digest.empty()) manifest["stages"] = stages_digest;
  SKEIN_TRY(write_text_atomically(env, join_path(folder->path(), kManifestName),
                                  manifest.dump(1, ' ', false, Json::error_handler_t::replace) + "\n"));
  SKEIN_TRY(folder->commit());
  if (request.on_warning) {
    for (const auto& warning : warnings) request.on_warning(warning);
    if (request.statistics_page) request.on_warning("--stats are of merged models; a merge of adapters writes none");
  }
  summary.num_tensors = 2 * merged.modules.size();
  summary.written_bytes = weights.size_bytes;
  summary.relative_error = merged.relative_error;
  return summary;
}

}  // namespace

Result<MergeSummary> run_adapter_merge(Env& env, Comm& comm, const MergeRequest& request, const Recipe& recipe,
                                       const std::string& recipe_text, const std::string& out,
                                       const std::string& stages_digest) {
  MergeSummary summary;
  summary.method = recipe.merge_method;
  summary.is_adapter = true;
  Status done;
  if (comm.rank() == 0) {
    auto merged = merge_on_root(env, request, recipe, recipe_text, out, stages_digest);
    if (merged.ok()) {
      summary = std::move(*merged);
    } else {
      done = merged.error();
    }
  }
  SKEIN_TRY(agree(comm, done));
  return summary;
}

Result<DryRun> describe_adapter_merge(Env& env, const Recipe& recipe, const std::set<std::string>& planned) {
  DryRun dry{concat("method      ", recipe.merge_method, ", adapters alone\n"), {{"method", recipe.merge_method}}};
  Json adapters = Json::array();
  std::uint64_t bytes = 0;
  for (const ModelRef& ref : recipe.models()) {
    if (recipe.base_model && ref == *recipe.base_model) continue;
    const std::string name = printable(ref.text(), 400);
    if (planned.contains(ref.adapter)) {
      dry.text += concat("adapter     ", name, ", a stage\n");
      adapters.push_back({{"adapter", ref.text()}});
      continue;
    }
    SKEIN_ASSIGN(const std::string folder, adapter_folder_of(env, ref, recipe.path));
    SKEIN_ASSIGN(const FileFacts facts, env.facts(join_path(folder, kWeights)));
    dry.text += concat("adapter     ", name, " in ", folder, ", ", facts.size_bytes, " bytes\n");
    adapters.push_back({{"adapter", ref.text()}, {"folder", folder}, {"bytes", facts.size_bytes}});
    bytes += facts.size_bytes;
  }
  dry.text += "done at once, in memory, by one process\n";
  dry.json["adapters"] = std::move(adapters);
  dry.json["read_bytes"] = bytes;
  return dry;
}

}  // namespace skein::merge
