#include "skein/merge/run_adapter_merge.h"

#include "skein/io/output_folder.h"
#include "skein/merge/adapter_merge.h"

namespace skein::merge {
namespace {

Result<MergeSummary> merge_on_root(Env& env, const MergeRequest& request, const Recipe& recipe,
                                   const std::string& recipe_text, const std::string& out) {
  // An output that --resume finds is made again: it costs less than knowing whether it is whole.
  SKEIN_ASSIGN(const auto folder, OutputFolder::begin(env, out, request.overwrite || request.resume));
  std::vector<std::string> warnings = recipe.warnings;
  SKEIN_ASSIGN(const MergedAdapter merged, merge_adapters(env, recipe, request.seed, folder->path(), recipe_text,
                                                          "Skein " + request.version, warnings));
  SKEIN_ASSIGN(const FileFacts weights, env.facts(join_path(folder->path(), "adapter_model.safetensors")));
  SKEIN_TRY(folder->commit());
  if (request.on_warning) {
    for (const auto& warning : warnings) request.on_warning(warning);
  }
  MergeSummary summary;
  summary.method = recipe.merge_method;
  summary.num_models = merged.num_adapters;
  summary.num_tensors = 2 * merged.modules.size();
  summary.written_bytes = weights.size_bytes;
  summary.is_adapter = true;
  summary.relative_error = merged.relative_error;
  return summary;
}

}  // namespace

Result<MergeSummary> run_adapter_merge(Env& env, Comm& comm, const MergeRequest& request, const Recipe& recipe,
                                       const std::string& recipe_text, const std::string& out) {
  MergeSummary summary;
  summary.method = recipe.merge_method;
  summary.is_adapter = true;
  Status done;
  if (comm.rank() == 0) {
    auto merged = merge_on_root(env, request, recipe, recipe_text, out);
    if (merged.ok()) {
      summary = std::move(*merged);
    } else {
      done = merged.error();
    }
  }
  SKEIN_TRY(agree(comm, done));
  return summary;
}

}  // namespace skein::merge
