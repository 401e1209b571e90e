// The choice itself by libtorch's operations, on any device: what choice_kernels.h does row by row.
#pragma once

#include "skein/route/router.h"

namespace skein {

// scores (N, E) f32, already over the temperature, -inf where an expert cannot be chosen, NaN taken for -inf -> the k
// largest of each row, ties to the lower index, weighted as the options say.
Mixture best_of_scores(const at::Tensor& scores, std::int64_t top_k, const RouterOptions& options);

}  // namespace skein
