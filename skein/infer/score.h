// Log-likelihoods of targets.
#pragma once

#include <vector>

#include "skein/infer/prompt.h"
#include "skein/nn/backbone.h"

namespace skein {

struct TargetScore {
  double log_likelihood = 0;      // sum over the target's tokens, end of sequence included, natural log
  double end_log_likelihood = 0;  // of the end-of-sequence token alone, so that a sum without it can be had
  std::int64_t num_tokens = 0;    // end of sequence included
};

// Scores of each choice of each example (of the target alone where there are no choices): the prompt is computed once
// and its choices branch from it. state: filler and memory as set by the caller. Batches internally, at most
// max_batch_tokens rows but at least one example. Inference mode inside. Throws Failure: an example longer than the
// base's positions, NaN logits, an interrupt.
std::vector<std::vector<TargetScore>> score_choices(const Backbone& backbone,
                                                    const std::vector<EncodedExample>& examples, ForwardState& state,
                                                    std::int64_t max_batch_tokens);

}  // namespace skein
