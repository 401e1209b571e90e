// The learning rate of each step.
#pragma once

#include <cstdint>

#include "skein/train/options.h"

namespace skein {

// warmup_ratio of the steps, rounded up.
std::int64_t warmup_steps(const TrainOptions& options);
// step counts from 0. In warm-up the multiplier is step / warm-up steps, so the first update has rate 0 (as in
// PHATGOOSE's released code); afterwards 1, or falling to 0 at `steps` (linear, or half a cosine), as transformers
// does.
double learning_rate_at(const TrainOptions& options, std::int64_t step);

}  // namespace skein
