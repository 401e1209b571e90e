// How the routing weight of each example is shared out among the experts.
#pragma once

#include <string>
#include <vector>

#include "skein/infer/loaded_model.h"
#include "skein/infer/prompt.h"
#include "skein/spec/example.h"

namespace skein {

struct ExampleShares {
  std::string task, id;
  std::vector<double> shares;  // (E): mean weight over the example's tokens and the slots with experts; sums to 1
};

// Input and target of each example, run once. Throws Failure if the model has no experts.
std::vector<ExampleShares> routing_shares(const LoadedModel& model, const std::vector<Example>& examples,
                                          const PromptOptions& options, std::int64_t max_batch_tokens);

}  // namespace skein
