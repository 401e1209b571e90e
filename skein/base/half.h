// bf16 and f16 <-> f32, round to nearest even; NaN stays NaN. Without branches, so that loops over them vectorise on
// any x86-64 or ARM.
#pragma once

#include <bit>
#include <cstdint>

namespace skein {

inline float bf16_to_f32(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

inline std::uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  const std::uint32_t quiet = (bits >> 16) | 0x40U;
  return static_cast<std::uint16_t>((bits & 0x7fffffffU) > 0x7f800000U ? quiet : rounded);
}

// A normal f16 needs its exponent raised by 127 - 15; a subnormal one is an integer multiple of 2^-24, which the
// subtraction makes exact without ever touching an f32 subnormal (flush-to-zero modes do no harm).
inline float f16_to_f32(std::uint16_t half) {
  const std::uint32_t magnitude = static_cast<std::uint32_t>(half & 0x7fffU) << 13;
  const std::uint32_t exponent = magnitude & 0x0f800000U;
  const std::uint32_t normal = magnitude + (112U << 23);
  const std::uint32_t special = magnitude + (224U << 23);  // infinity and NaN keep the highest exponent
  const std::uint32_t small =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude + (113U << 23)) - std::bit_cast<float>(113U << 23));
  std::uint32_t bits = exponent == 0x0f800000U ? special : normal;
  bits = exponent == 0 ? small : bits;
  return std::bit_cast<float>(bits | static_cast<std::uint32_t>(half & 0x8000U) << 16);
}

// After F. Giesen, "float_to_half_fast3_rtne".
inline std::uint16_t f32_to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits & 0x80000000U;
  const std::uint32_t magnitude = bits ^ sign;
  // Adding 2^-1 to a number below 2^-14 rounds it to a multiple of 2^-24, the f16 subnormals' step.
  const std::uint32_t small =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + std::bit_cast<float>(126U << 23)) - (126U << 23);
  // Rebias the exponent and round half to even: the carry may run into the exponent, up to infinity.
  const std::uint32_t normal = (magnitude - (112U << 23) + 0xfffU + ((magnitude >> 13) & 1U)) >> 13;
  std::uint32_t half = magnitude < (113U << 23) ? small : normal;
  half = magnitude >= (143U << 23) ? 0x7c00U : half;  // 2^16 and above: infinity
  half = magnitude > (255U << 23) ? 0x7e00U : half;   // NaN
  return static_cast<std::uint16_t>(half | sign >> 16);
}

}  // namespace skein
