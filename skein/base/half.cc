#include "skein/base/half.h"

namespace skein {

// g++ 12 has _Float16 on x86-64 with SSE2; the compiler rounds to nearest even in both directions.
float f16_to_f32(std::uint16_t bits) { return static_cast<float>(std::bit_cast<_Float16>(bits)); }
std::uint16_t f32_to_f16(float value) { return std::bit_cast<std::uint16_t>(static_cast<_Float16>(value)); }

}  // namespace skein
