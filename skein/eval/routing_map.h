// Which experts the tokens of one task chose, slot by slot: what the report's routing maps are drawn from.
#pragma once

#include <string>
#include <vector>

#include "skein/infer/loaded_model.h"
#include "skein/infer/prompt.h"
#include "skein/io/json.h"

namespace skein {

// {"experts": [...], "slots": [[layer, module], ...], "shares": (slots, E) sums to 1 per slot, "entropy": (slots) mean
// over tokens of the entropy of their weights in bits, "examples": n}. Slots without an expert are left out. Inputs and
// targets are run once. Throws Failure if the model has no experts.
Json routing_map(const LoadedModel& model, const std::vector<Example>& examples, const PromptOptions& options,
                 std::int64_t max_batch_tokens);

}  // namespace skein
