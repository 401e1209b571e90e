// A merge as one step of a comparison.
#pragma once

#include <string>

#include "skein/base/result.h"
#include "skein/dist/comm.h"

namespace skein {

// Runs `skein merge RECIPE OUT` as a process of its own, so that its memory is given back before the result is loaded.
// An OUT that this recipe made before is kept, any other replaced. An error says how the merge ended.
Status merge_checkpoint(const std::string& recipe, const std::string& out, int num_threads);
// The same by the first rank of a job (null: alone), while the others wait. Collective.
Status merge_checkpoint(Comm* comm, const std::string& recipe, const std::string& out, int num_threads);

}  // namespace skein
