// Runs tokens through a routed model and keeps who was chosen where.
#pragma once

#include <string>
#include <vector>

#include "skein/cli/trace.h"
#include "skein/infer/loaded_model.h"

namespace skein {

// One pass over prompt and answer together (a token's choice depends on what precedes it only, so this is what it chose
// while the answer was written, up to rounding). Throws Failure if the model has no experts.
Trace trace_tokens(const LoadedModel& model, const std::vector<TokenId>& prompt, const std::vector<TokenId>& answer,
                   const std::string& router, const std::shared_ptr<const SequenceHint>& hint);

}  // namespace skein
