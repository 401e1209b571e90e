// A stage whose recipe merges adapters alone: one rank does it at once, in memory; nothing is left to go on with.
#pragma once

#include <set>
#include <string>

#include "skein/base/result.h"
#include "skein/dist/comm.h"
#include "skein/io/env.h"
#include "skein/merge/recipe.h"
#include "skein/merge/run_merge.h"

namespace skein::merge {

// What would be merged, for --dry-run. planned: names of stages that would give adapters, and are not there.
Result<DryRun> describe_adapter_merge(Env& env, const Recipe& recipe, const std::set<std::string>& planned);

// stages_digest: of all stages, for the manifest of their result; else empty. Collective. The summary is the same on
// all ranks but for its numbers, which rank 0 has.
Result<MergeSummary> run_adapter_merge(Env& env, Comm& comm, const MergeRequest& request, const Recipe& recipe,
                                       const std::string& recipe_text, const std::string& out,
                                       const std::string& stages_digest);

}  // namespace skein::merge
