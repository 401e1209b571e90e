// exp and log in f64 whose bits do not depend on the C library or the processor: sums and products in a fixed order.
// Relative error below 1e-15.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace skein::merge {

// For x <= 0 (0 below -708).
inline double portable_exp(double x) {
  if (x < -708) return 0;
  constexpr double kLog2Upper = 0x1.62e42fee00000p-1, kLog2Lower = 0x1.a39ef35793c76p-33;
  const double k = std::nearbyint(x * 0x1.71547652b82fep0);
  const double r = (x - k * kLog2Upper) - k * kLog2Lower;  // |r| <= 0.347
  double sum = 1;
  for (int n = 13; n > 0; --n) sum = 1 + r / n * sum;  // Horner's form of the Taylor series
  return sum * std::bit_cast<double>((static_cast<std::uint64_t>(static_cast<std::int64_t>(k) + 1023)) << 52);
}

// For normal x > 0.
inline double portable_log(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  auto exponent = static_cast<std::int64_t>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffULL) | (std::uint64_t{1023} << 52));
  if (m > 1.4142135623730951) {
    m /= 2;
    ++exponent;
  }
  const double s = (m - 1) / (m + 1), square = s * s;  // log m = 2 (s + s^3 / 3 + ...), |s| <= 0.172
  double sum = 0;
  for (int n = 21; n > 0; n -= 2) sum = 1.0 / n + square * sum;
  return 2 * s * sum + static_cast<double>(exponent) * 0x1.62e42fefa39efp-1;
}

}  // namespace skein::merge
