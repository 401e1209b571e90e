// NaN and infinite elements, counted.
#pragma once

#include <cstddef>
#include <cstdint>

#include "skein/base/dtype.h"

namespace skein::merge {

// Of kF32, kBF16 and kF16 elements, any alignment; 0 for other types.
std::uint64_t count_nonfinite(DType dtype, const std::byte* data, std::int64_t count);

}  // namespace skein::merge
