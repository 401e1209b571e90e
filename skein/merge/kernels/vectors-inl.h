// Vectors of f32 and their loads and stores in the three types of a Piece. Included once per instruction set.
//
// Every target gives the same bits: no fused multiply-add is written here and the folder is compiled with
// -ffp-contract=off; f16 is converted with integers (some targets' own conversions flush or forget NaN).
#if defined(SKEIN_MERGE_KERNELS_VECTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SKEIN_MERGE_KERNELS_VECTORS_INL_H_
#undef SKEIN_MERGE_KERNELS_VECTORS_INL_H_
#else
#define SKEIN_MERGE_KERNELS_VECTORS_INL_H_
#endif

#include <cstring>

#include "hwy/highway.h"
#include "skein/merge/kernels/tiles.h"

HWY_BEFORE_NAMESPACE();
namespace skein::merge {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::CappedTag<float, 16>;
using U = hn::RebindToUnsigned<F>;
using Half = hn::Rebind<std::uint16_t, F>;
using VF = hn::Vec<F>;
using VU = hn::Vec<U>;
inline constexpr std::int64_t kLanes = static_cast<std::int64_t>(hn::MaxLanes(F()));

HWY_INLINE VU magnitude_bits(VF value) { return hn::And(hn::BitCast(U(), value), hn::Set(U(), 0x7fffffffU)); }

HWY_INLINE VF from_bf16(VU bits) { return hn::BitCast(F(), hn::ShiftLeft<16>(bits)); }

// As f16_to_f32 of base/half.h.
HWY_INLINE VF from_f16(VU half) {
  const U u;
  const F f;
  const auto magnitude = hn::ShiftLeft<13>(hn::And(half, hn::Set(u, 0x7fffU)));
  const auto exponent = hn::And(magnitude, hn::Set(u, 0x0f800000U));
  const auto normal = hn::Add(magnitude, hn::Set(u, 112U << 23));
  const auto special = hn::Add(magnitude, hn::Set(u, 224U << 23));
  const auto step = hn::Set(u, 113U << 23);
  const auto small = hn::BitCast(u, hn::Sub(hn::BitCast(f, hn::Add(magnitude, step)), hn::BitCast(f, step)));
  auto bits = hn::IfThenElse(hn::Eq(exponent, hn::Set(u, 0x0f800000U)), special, normal);
  bits = hn::IfThenElse(hn::Eq(exponent, hn::Zero(u)), small, bits);
  return hn::BitCast(f, hn::Or(bits, hn::ShiftLeft<16>(hn::And(half, hn::Set(u, 0x8000U)))));
}

HWY_INLINE VU to_bf16(VF value) {
  const U u;
  const auto bits = hn::BitCast(u, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(u, 0x7fff))));
  const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(u, 0x40));
  return hn::IfThenElse(hn::RebindMask(u, hn::IsNaN(value)), quiet, rounded);
}

// As f32_to_f16 of base/half.h. Compared as signed: magnitudes have no sign bit.
HWY_INLINE VU to_f16(VF value) {
  const U u;
  const F f;
  const hn::RebindToSigned<F> s;
  const auto magnitude = magnitude_bits(value);
  const auto sign = hn::Xor(hn::BitCast(u, value), magnitude);
  const auto half_step = hn::Set(u, 126U << 23);
  const auto small = hn::Sub(hn::BitCast(u, hn::Add(hn::BitCast(f, magnitude), hn::BitCast(f, half_step))), half_step);
  const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(u, 1));
  const auto normal =
      hn::ShiftRight<13>(hn::Add(hn::Sub(magnitude, hn::Set(u, 112U << 23)), hn::Add(odd, hn::Set(u, 0xfffU))));
  const auto signed_magnitude = hn::BitCast(s, magnitude);
  const auto at_least = [&](std::int32_t bits) {
    return hn::RebindMask(u, hn::Gt(signed_magnitude, hn::Set(s, bits - 1)));
  };
  auto half = hn::IfThenElse(at_least(113 << 23), normal, small);
  half = hn::IfThenElse(at_least(143 << 23), hn::Set(u, 0x7c00U), half);
  half = hn::IfThenElse(at_least((255 << 23) + 1), hn::Set(u, 0x7e00U), half);
  return hn::Or(half, hn::ShiftRight<16>(sign));
}

template <DType kType>
inline constexpr std::size_t kSize = kType == DType::kF32 ? 4 : 2;

// kLanes elements at any address.
template <DType kType>
HWY_INLINE VF load_as_f32(const std::byte* p) {
  if constexpr (kType == DType::kF32) {
    return hn::LoadU(F(), reinterpret_cast<const float*>(p));
  } else {
    const auto bits = hn::PromoteTo(U(), hn::LoadU(Half(), reinterpret_cast<const std::uint16_t*>(p)));
    if constexpr (kType == DType::kBF16) return from_bf16(bits);
    return from_f16(bits);
  }
}

template <DType kType>
HWY_INLINE void store_from_f32(VF value, std::byte* p) {
  if constexpr (kType == DType::kF32) {
    hn::StoreU(value, F(), reinterpret_cast<float*>(p));
  } else {
    const auto bits = kType == DType::kBF16 ? to_bf16(value) : to_f16(value);
    const auto narrow = hn::DemoteTo(Half(), hn::BitCast(hn::RebindToSigned<F>(), bits));
    hn::StoreU(narrow, Half(), reinterpret_cast<std::uint16_t*>(p));
  }
}

// body(vector, i) for i = 0, kLanes, ... < n; the last vector is filled up with zeros.
template <DType kType, class Body>
HWY_INLINE void for_each_vector(const std::byte* p, std::int64_t n, const Body& body) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(load_as_f32<kType>(p + i * static_cast<std::int64_t>(kSize<kType>)), i);
  if (i < n) {
    alignas(64) std::byte rest[kLanes * 4] = {};
    std::memcpy(rest, p + i * static_cast<std::int64_t>(kSize<kType>), static_cast<std::size_t>(n - i) * kSize<kType>);
    body(load_as_f32<kType>(rest), i);
  }
}

template <class Body>
HWY_INLINE void for_each_vector(const Piece& piece, std::int64_t offset, std::int64_t n, const Body& body) {
  switch (piece.dtype) {
    case DType::kBF16:
      return for_each_vector<DType::kBF16>(piece.data + 2 * offset, n, body);
    case DType::kF16:
      return for_each_vector<DType::kF16>(piece.data + 2 * offset, n, body);
    default:
      return for_each_vector<DType::kF32>(piece.data + 4 * offset, n, body);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace skein::merge
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
