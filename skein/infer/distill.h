// A routed pool as one adapter: average routing weights per module stand as merge weights (docs/design/routers.md).
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/infer/loaded_model.h"
#include "skein/infer/prompt.h"

namespace skein {

// Mean weight of each expert over the tokens that each slot read: (slots, E) f64, rows sum to 1 up to the router's eps
// (0 where nothing was routed). Input and target of each example, run once. Throws Failure: no experts, an interrupt.
at::Tensor mean_routing_weights(const LoadedModel& model, const std::vector<EncodedExample>& examples,
                                std::int64_t max_batch_tokens);

// Hidden states (n, D), before the output head, of the rows that predict the target tokens, example by example; hints
// included. No gradient.
at::Tensor predicting_rows(const Backbone& backbone, const SlotFiller* filler,
                           const std::vector<EncodedExample>& examples);

// How far one filler's predictions are from another's, over the target tokens of all examples.
struct OutputDistance {
  double reference_loss = 0;  // mean negative log-likelihood of the targets
  double loss = 0;            // of the other filler's
  double divergence = 0;      // mean KL(reference || other), nats per token
  std::int64_t num_tokens = 0;
};
// reference and other: may be null, the plain base. Inference mode inside. Throws Failure on an interrupt.
OutputDistance output_distance(const Backbone& backbone, const SlotFiller* reference, const SlotFiller* other,
                               const std::vector<EncodedExample>& examples);

}  // namespace skein
