// Shapes of tensors, outermost dimension first, and sizes computed without overflow.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace skein {

using Shape = std::vector<std::int64_t>;

// Product of the dimensions (1 for a scalar); nothing if a dimension is negative or the product exceeds 2^63 - 1.
std::optional<std::int64_t> checked_numel(const Shape& shape);
// a * b for non-negative a and b; nothing on overflow or a negative factor.
std::optional<std::int64_t> checked_mul(std::int64_t a, std::int64_t b);
// "(576, 192)".
std::string to_string(const Shape& shape);

}  // namespace skein
