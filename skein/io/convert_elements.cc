// g++ 12's -O2 vectorises only loops of known trip counts; these are the loops that load a model.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

#include "skein/io/convert_elements.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "skein/base/check.h"
#include "skein/base/concat.h"
#include "skein/base/half.h"
#include "skein/base/thread_pool.h"

namespace skein {
namespace {

constexpr std::int64_t kGrainElements = 1 << 16;
constexpr std::int64_t kBlock = 1024;  // elements on the way through f32, in the first-level cache

// The bytes of files lie at any address: loads and stores go through memcpy, which compiles to a plain move.
template <typename From, typename To, To (*convert)(From)>
void convert_loop(const std::byte* from, std::int64_t count, std::byte* out) {
  for (std::int64_t i = 0; i < count; ++i) {
    From element;
    std::memcpy(&element, from + i * static_cast<std::int64_t>(sizeof(From)), sizeof(From));
    const To converted = convert(element);
    std::memcpy(out + i * static_cast<std::int64_t>(sizeof(To)), &converted, sizeof(To));
  }
}

float f64_to_f32(double value) { return static_cast<float>(value); }
std::uint16_t f16_to_bf16(std::uint16_t bits) { return f32_to_bf16(f16_to_f32(bits)); }
std::uint16_t bf16_to_f16(std::uint16_t bits) { return f32_to_f16(bf16_to_f32(bits)); }

// E4M3 of "FP8 Formats for Deep Learning" (arXiv:2209.05433): bias 7, no infinity, 0x7f and 0xff are NaN.
float f8e4m3_to_f32(std::uint8_t bits) {
  const int exponent = (bits >> 3) & 15, mantissa = bits & 7;
  if ((bits & 0x7f) == 0x7f) return std::bit_cast<float>(0x7fc00000U | static_cast<std::uint32_t>(bits & 0x80) << 24);
  // (1 + m/8) 2^(e-7), or m/8 2^-6: both exact in f32.
  const float scale = std::bit_cast<float>(static_cast<std::uint32_t>(127 - 10 + (exponent > 0 ? exponent : 1)) << 23);
  const float magnitude = static_cast<float>(mantissa + (exponent > 0 ? 8 : 0)) * scale;
  return (bits & 0x80) != 0 ? -magnitude : magnitude;
}
// E5M2 is the upper byte of an f16.
float f8e5m2_to_f32(std::uint8_t bits) { return f16_to_f32(static_cast<std::uint16_t>(bits << 8)); }

template <float (*convert)(std::uint8_t)>
void convert_f8(const std::byte* from, std::int64_t count, std::byte* out) {
  static const auto kTable = [] {
    std::array<float, 256> table;
    for (int i = 0; i < 256; ++i) table[static_cast<std::size_t>(i)] = convert(static_cast<std::uint8_t>(i));
    return table;
  }();
  for (std::int64_t i = 0; i < count; ++i) std::memcpy(out + 4 * i, &kTable[static_cast<std::size_t>(from[i])], 4);
}

using Kernel = void (*)(const std::byte* from, std::int64_t count, std::byte* out);

Kernel kernel_to_f32(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return convert_loop<double, float, f64_to_f32>;
    case DType::kF16:
      return convert_loop<std::uint16_t, float, f16_to_f32>;
    case DType::kBF16:
      return convert_loop<std::uint16_t, float, bf16_to_f32>;
    case DType::kF8E4M3:
      return convert_f8<f8e4m3_to_f32>;
    case DType::kF8E5M2:
      return convert_f8<f8e5m2_to_f32>;
    default:
      return nullptr;
  }
}

Kernel kernel_from_f32(DType dtype) {
  if (dtype == DType::kBF16) return convert_loop<float, std::uint16_t, f32_to_bf16>;
  if (dtype == DType::kF16) return convert_loop<float, std::uint16_t, f32_to_f16>;
  return nullptr;
}

void convert_range(DType source, DType target, const std::byte* from, std::int64_t count, std::byte* out) {
  if (source == target) {
    std::memcpy(out, from, static_cast<std::size_t>(count * dtype_size(source)));
  } else if (source == DType::kF32) {
    kernel_from_f32(target)(from, count, out);
  } else if (target == DType::kF32) {
    kernel_to_f32(source)(from, count, out);
  } else if (source == DType::kF16 && target == DType::kBF16) {
    convert_loop<std::uint16_t, std::uint16_t, f16_to_bf16>(from, count, out);
  } else if (source == DType::kBF16 && target == DType::kF16) {
    convert_loop<std::uint16_t, std::uint16_t, bf16_to_f16>(from, count, out);
  } else {
    std::byte block[kBlock * 4];
    for (std::int64_t begin = 0; begin < count; begin += kBlock) {
      const std::int64_t size = std::min(kBlock, count - begin);
      kernel_to_f32(source)(from + begin * dtype_size(source), size, block);
      kernel_from_f32(target)(block, size, out + begin * dtype_size(target));
    }
  }
}

}  // namespace

bool is_conversion_target(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16; }

Status convert_elements(const TensorView& from, DType dtype, std::span<std::byte> out) {
  if (from.dtype != dtype && !(is_floating(from.dtype) && is_conversion_target(dtype))) {
    return Error{concat("elements of type ", dtype_name(from.dtype), " cannot be read as ", dtype_name(dtype))};
  }
  const std::int64_t source_size = dtype_size(from.dtype), target_size = dtype_size(dtype);
  const auto count = static_cast<std::int64_t>(from.bytes.size()) / source_size;
  SKEIN_CHECK(static_cast<std::int64_t>(out.size()) == count * target_size);
  parallel_for(count, kGrainElements, [&](std::int64_t begin, std::int64_t end) {
    convert_range(from.dtype, dtype, from.bytes.data() + begin * source_size, end - begin,
                  out.data() + begin * target_size);
  });
  return {};
}

void convert_from_f32(const float* from, std::int64_t count, DType dtype, std::byte* out) {
  SKEIN_CHECK(is_conversion_target(dtype));
  convert_range(DType::kF32, dtype, reinterpret_cast<const std::byte*>(from), count, out);
}

void convert_to_f32(DType dtype, const std::byte* from, std::int64_t count, float* out) {
  SKEIN_CHECK(is_floating(dtype));
  convert_range(dtype, DType::kF32, from, count, reinterpret_cast<std::byte*>(out));
}

}  // namespace skein
