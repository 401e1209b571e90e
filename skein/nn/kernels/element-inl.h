// Vectors of f32 read from and written to f32 or bf16 memory. Included once per vector target (Highway's convention).
#if defined(SKEIN_NN_KERNELS_ELEMENT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SKEIN_NN_KERNELS_ELEMENT_INL_H_
#undef SKEIN_NN_KERNELS_ELEMENT_INL_H_
#else
#define SKEIN_NN_KERNELS_ELEMENT_INL_H_
#endif

#include <cstdint>

#include <hwy/highway.h>

#include "skein/base/half.h"

HWY_BEFORE_NAMESPACE();
namespace skein::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Vec = hn::Vec<Floats>;

HWY_INLINE std::int64_t lanes() { return static_cast<std::int64_t>(hn::Lanes(Floats())); }

HWY_INLINE float widen(float value) { return value; }
HWY_INLINE float widen(std::uint16_t value) { return bf16_to_f32(value); }
HWY_INLINE void narrow_to(float value, float* to) { *to = value; }
HWY_INLINE void narrow_to(float value, std::uint16_t* to) { *to = f32_to_bf16(value); }

// The next lanes() values.
HWY_INLINE Vec load(const float* from) { return hn::LoadU(Floats(), from); }
HWY_INLINE Vec load(const std::uint16_t* from) {
  const hn::Rebind<std::uint16_t, Floats> narrow;
  const hn::RebindToUnsigned<Floats> bits;
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(hn::PromoteTo(bits, hn::LoadU(narrow, from))));
}

// The top halves of v rounded to nearest even, as 32-bit integers; NaN stays NaN.
HWY_INLINE hn::Vec<hn::RebindToSigned<Floats>> bf16_bits(Vec v) {
  const hn::RebindToUnsigned<Floats> bits;
  const auto raw = hn::BitCast(bits, v);
  const auto odd = hn::And(hn::ShiftRight<16>(raw), hn::Set(bits, 1));
  const auto rounded = hn::Add(raw, hn::Add(odd, hn::Set(bits, 0x7fff)));
  const auto quiet = hn::Or(raw, hn::Set(bits, 0x400000));
  const auto chosen = hn::IfThenElse(hn::RebindMask(bits, hn::IsNaN(v)), quiet, rounded);
  return hn::BitCast(hn::RebindToSigned<Floats>(), hn::ShiftRight<16>(chosen));
}

HWY_INLINE void store(Vec v, float* to) { hn::StoreU(v, Floats(), to); }
HWY_INLINE void store(Vec v, std::uint16_t* to) {
  const hn::Rebind<std::uint16_t, Floats> narrow;
  hn::StoreU(hn::DemoteTo(narrow, bf16_bits(v)), narrow, to);
}

// v as memory of this type would hold it.
HWY_INLINE Vec rounded_as(Vec v, const float*) { return v; }
HWY_INLINE Vec rounded_as(Vec v, const std::uint16_t*) {
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(bf16_bits(v)));
}

// body(from, to, count) over `width` elements in steps of lanes(); what is left over goes through full-width buffers.
// kInputs arrays are read, kOutputs written.
template <int kInputs, int kOutputs, typename T, typename Body>
HWY_INLINE void for_each_vector(const T* const (&inputs)[kInputs], T* const (&outputs)[kOutputs], std::int64_t width,
                                const Body& body) {
  std::int64_t i = 0;
  const T* from[kInputs];
  T* to[kOutputs];
  for (; i + lanes() <= width; i += lanes()) {
    for (int a = 0; a < kInputs; ++a) from[a] = inputs[a] + i;
    for (int a = 0; a < kOutputs; ++a) to[a] = outputs[a] + i;
    body(from, to, i);
  }
  if (i == width) return;
  T spare_in[kInputs][hn::MaxLanes(Floats())] = {};
  T spare_out[kOutputs][hn::MaxLanes(Floats())];
  for (int a = 0; a < kInputs; ++a) {
    for (std::int64_t rest = i; rest < width; ++rest) spare_in[a][rest - i] = inputs[a][rest];
    from[a] = spare_in[a];
  }
  for (int a = 0; a < kOutputs; ++a) to[a] = spare_out[a];
  body(from, to, i);
  for (int a = 0; a < kOutputs; ++a) {
    for (std::int64_t rest = i; rest < width; ++rest) outputs[a][rest] = spare_out[a][rest - i];
  }
}

}  // namespace skein::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per target
