#include "skein/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace skein {

std::int64_t warmup_steps(const TrainOptions& options) {
  // 0.07 * 100 is a little more than 7 in binary: without the slack, rounding up would give 8.
  return static_cast<std::int64_t>(std::ceil(options.warmup_ratio * static_cast<double>(options.steps) - 1e-9));
}

double learning_rate_at(const TrainOptions& options, std::int64_t step) {
  const std::int64_t warmup = warmup_steps(options);
  if (step < warmup) return options.learning_rate * static_cast<double>(step) / static_cast<double>(warmup);
  const double after = static_cast<double>(std::max<std::int64_t>(options.steps - warmup, 1));
  const double progress = std::min(1.0, static_cast<double>(step - warmup) / after);
  switch (options.schedule) {
    case Schedule::kConstant:
      return options.learning_rate;
    case Schedule::kLinear:
      return options.learning_rate * (1 - progress);
    case Schedule::kCosine:
      return options.learning_rate * 0.5 * (1 + std::cos(std::numbers::pi * progress));
  }
  SKEIN_CHECK(false);
}

}  // namespace skein
