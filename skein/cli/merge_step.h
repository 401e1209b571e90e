// A merge as one step of a comparison.
#pragma once

#include <string>

#include "skein/base/result.h"

namespace skein {

// Runs `skein merge RECIPE OUT` as a process of its own, so that its memory is given back before the result is loaded.
// An OUT that is complete already is kept. An error says how the merge ended.
Status merge_checkpoint(const std::string& recipe, const std::string& out, int num_threads);

}  // namespace skein
