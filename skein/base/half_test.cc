#include "skein/base/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace skein {
namespace {

// Rounding by definition: of the two neighbours that bf16 has, the nearer; halfway, the one whose last bit is 0.
std::uint16_t nearest_bf16(float value) {
  const auto below = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
  const auto above = static_cast<std::uint16_t>(below + 1);
  const double down = std::abs(static_cast<double>(value) - bf16_to_f32(below));
  const double up = std::abs(static_cast<double>(bf16_to_f32(above)) - value);
  if (down != up) return down < up ? below : above;
  return below % 2 == 0 ? below : above;
}

TEST(Bf16, RoundsToNearestEven) {
  std::uint32_t state = 1;
  for (int i = 0; i < 200000; ++i) {
    state = state * 1664525U + 1013904223U;
    const float value = std::bit_cast<float>(state);
    if (!std::isfinite(value) || std::abs(value) > 1e38F) continue;
    ASSERT_EQ(f32_to_bf16(value), nearest_bf16(value)) << value;
  }
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808000U)), 0x3f80);  // halfway, down to even
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f818000U)), 0x3f82);  // halfway, up to even
}

TEST(Bf16, KeepsNanAndInfinity) {
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::numeric_limits<float>::quiet_NaN()))));
  // A NaN whose payload lies in the low bits only must not round to infinity.
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001U)))));
  EXPECT_EQ(bf16_to_f32(f32_to_bf16(std::numeric_limits<float>::infinity())), std::numeric_limits<float>::infinity());
}

// By definition: sign, 5 bits of exponent with bias 15, 10 bits of fraction; exponent 0 is subnormal, 31 is infinity or
// NaN.
double f16_by_definition(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  double magnitude = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  if (exponent == 31) magnitude = fraction == 0 ? HUGE_VAL : std::nan("");
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

TEST(F16, EveryValueIsItsDefinitionAndRoundTrips) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const double expected = f16_by_definition(half);
    const float value = f16_to_f32(half);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_TRUE(std::isnan(f16_to_f32(f32_to_f16(value)))) << bits;
      continue;
    }
    ASSERT_EQ(value, expected) << bits;
    ASSERT_EQ(std::signbit(value), std::signbit(expected)) << bits;
    ASSERT_EQ(f32_to_f16(value), bits);
  }
}

TEST(F16, RoundsToNearestEven) {
  for (std::uint32_t bits = 0; bits < 0x7bff; ++bits) {  // all positive finite values but the largest
    const float below = f16_to_f32(static_cast<std::uint16_t>(bits));
    const float above = f16_to_f32(static_cast<std::uint16_t>(bits + 1));
    const float tie = below + (above - below) / 2;  // exact: f32 has 13 more bits
    for (const float sign : {1.0F, -1.0F}) {
      const std::uint32_t sign_bit = sign < 0 ? 0x8000U : 0;
      ASSERT_EQ(f32_to_f16(sign * std::nextafter(tie, below)), bits | sign_bit) << tie;
      ASSERT_EQ(f32_to_f16(sign * tie), (bits % 2 == 0 ? bits : bits + 1) | sign_bit) << tie;
      ASSERT_EQ(f32_to_f16(sign * std::nextafter(tie, above)), (bits + 1) | sign_bit) << tie;
    }
  }
  // Above the largest, 65504: up to the tie with 65536, down; from there on, infinity.
  EXPECT_EQ(f32_to_f16(std::nextafter(65520.0F, 0.0F)), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0F), 0x7c00);
  EXPECT_EQ(f32_to_f16(1e30F), 0x7c00);
}

}  // namespace
}  // namespace skein
