// Examples, encoded and handed on in batches: for whoever runs a model over data to follow its routing.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "skein/infer/loaded_model.h"
#include "skein/infer/prompt.h"

namespace skein {

// Calls with consecutive examples, as many as have max_batch_tokens tokens of input and target (the last may go over),
// and the index of the first. Throws Failure (kInterrupted) on Ctrl-C.
void for_each_encoded_batch(
    const LoadedModel& model, const std::vector<Example>& examples, const PromptOptions& options,
    std::int64_t max_batch_tokens,
    const std::function<void(const std::vector<EncodedExample>& encoded, std::size_t first)>& use_batch);

}  // namespace skein
