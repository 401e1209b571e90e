// nuslerp's coefficients, and its variant along the first axis.
#pragma once

#include <memory>
#include <utility>

#include "skein/merge/method.h"

namespace skein::merge {

// The factors of two vectors with dot products aa, ab, bb.
std::pair<double, double> nuslerp_coefficients(double t, double aa, double ab, double bb);

// For every position in the later axes, the elements along the first axis are one vector. Needs the whole tensor.
Result<std::unique_ptr<TensorMerge>> nuslerp_along_first_axis(const TensorJob& job, double t);

}  // namespace skein::merge
