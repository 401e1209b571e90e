// LoraHub (arXiv 2307.13269): weights of a pool's experts for a task from a handful of examples, without gradients.
#pragma once

#include <cstdint>
#include <vector>

#include "skein/infer/loaded_model.h"
#include "skein/infer/prompt.h"

namespace skein {

struct LoraHubOptions {
  std::int64_t generations = 40;  // of CMA-ES
  double bound = 1.5;             // |w| at most
  double penalty = 0.05;          // of the mean |w|, beside the mean loss of a target token
  std::uint64_t seed = 0;
};

struct LoraHub {
  std::vector<double> weights;     // of the experts, in order
  LoraAdapter adapter;             // A = sum of w A, B = sum of w s B
  double base_loss = 0, loss = 0;  // mean negative log-likelihood of a target token, without the penalty
  std::int64_t evaluations = 0;
};

// Throws Failure: no examples, an interrupt.
LoraHub fit_lorahub(const LoadedModel& model, const std::vector<LoraAdapter>& adapters,
                    const std::vector<EncodedExample>& examples, const LoraHubOptions& options);

}  // namespace skein
