#include "skein/experts/lora_kernels.h"

// A row's operations are the same in every tile only while vectors have a fixed size.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "skein/experts/lora_kernels.cc"
#include "hwy/foreach_target.h"
//
#include "hwy/highway.h"
#include "skein/base/half.h"

HWY_BEFORE_NAMESPACE();
namespace skein {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::CappedTag<float, 16>;
using U = hn::RebindToUnsigned<F>;
using Half = hn::Rebind<std::uint16_t, F>;
using VectorF = hn::Vec<F>;
inline constexpr int kVectorLanes = static_cast<int>(hn::MaxLanes(F()));

// f32 -> bf16 bits in the low half of each lane, to nearest even, NaN kept quiet.
HWY_INLINE hn::Vec<U> rounded_to_bf16(VectorF value) {
  const U u;
  const auto bits = hn::BitCast(u, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(u, 0x7fff))));
  const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(u, 0x40));
  return hn::IfThenElse(hn::RebindMask(u, hn::IsNaN(value)), quiet, rounded);
}

HWY_INLINE VectorF load_bf16(const std::uint16_t* p) {
  return hn::BitCast(F(), hn::ShiftLeft<16>(hn::PromoteTo(U(), hn::LoadU(Half(), p))));
}

HWY_INLINE void store_bf16(VectorF value, std::uint16_t* p) {
  hn::StoreU(hn::DemoteTo(Half(), hn::BitCast(hn::RebindToSigned<F>(), rounded_to_bf16(value))), Half(), p);
}

struct CommonOps {
  using V = VectorF;
  static constexpr int kLanes = kVectorLanes;
  static constexpr int kShrinkRows = kLanes >= 16 ? 8 : 4;
  static constexpr int kChains = kLanes >= 16 ? 2 : 1;
  // 16 registers with AVX2 and before, 32 with AVX-512.
  static constexpr int project_rows(int vectors) {
    return kLanes >= 16 ? (vectors <= 2 ? 8 : 6) : (vectors <= 2 ? 4 : 2);
  }
  static HWY_INLINE V Zero() { return hn::Zero(F()); }
  static HWY_INLINE void StoreF(V v, float* p) { hn::StoreU(v, F(), p); }
  static HWY_INLINE V Add(V a, V b) { return hn::Add(a, b); }
  static HWY_INLINE V Scale(V a, float s) { return hn::Mul(a, hn::Set(F(), s)); }
};

struct F32Ops : CommonOps {
  using T = float;
  using W = VectorF;
  using X = VectorF;
  static constexpr int kPack = 1;
  static HWY_INLINE W LoadW(const float* p) { return hn::LoadU(F(), p); }
  static HWY_INLINE X Spread(const float* p) { return hn::Set(F(), *p); }
  static HWY_INLINE X SpreadLast(const float* p) { return Spread(p); }
  static HWY_INLINE V Dot(V sum, W w, X x) { return hn::MulAdd(w, x, sum); }
  static HWY_INLINE V LoadT(const float* p) { return hn::LoadU(F(), p); }
  static HWY_INLINE void StoreT(V v, float* p) { hn::StoreU(v, F(), p); }
};

// bf16 is the upper half of an f32: the pair in a lane is split by a shift and a mask.
struct Bf16Ops : CommonOps {
  using T = std::uint16_t;
  struct W {
    VectorF even, odd;
  };
  using X = W;
  static constexpr int kPack = 2;
  static HWY_INLINE W LoadW(const std::uint16_t* p) {
    const U u;
    const auto pair = hn::LoadU(u, reinterpret_cast<const std::uint32_t*>(p));
    return W{hn::BitCast(F(), hn::ShiftLeft<16>(pair)), hn::BitCast(F(), hn::And(pair, hn::Set(u, 0xffff0000U)))};
  }
  static HWY_INLINE X Spread(const std::uint16_t* p) {
    return X{hn::Set(F(), bf16_to_f32(p[0])), hn::Set(F(), bf16_to_f32(p[1]))};
  }
  static HWY_INLINE X SpreadLast(const std::uint16_t* p) { return X{hn::Set(F(), bf16_to_f32(p[0])), hn::Zero(F())}; }
  static HWY_INLINE V Dot(V sum, W w, X x) { return hn::MulAdd(w.odd, x.odd, hn::MulAdd(w.even, x.even, sum)); }
  static HWY_INLINE V LoadT(const std::uint16_t* p) { return load_bf16(p); }
  static HWY_INLINE void StoreT(V v, std::uint16_t* p) { store_bf16(v, p); }
};

#include "skein/experts/lora_tiles-inl.h"

LoraKernels<float> KernelsF32() { return {shrink<F32Ops>, expand<F32Ops>, project<F32Ops>}; }
LoraKernels<std::uint16_t> KernelsBf16() { return {shrink<Bf16Ops>, expand<Bf16Ops>, project<Bf16Ops>}; }

}  // namespace HWY_NAMESPACE
}  // namespace skein
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace skein {

HWY_EXPORT(KernelsF32);
HWY_EXPORT(KernelsBf16);

const LoraKernels<float>& lora_kernels_f32() {
  static const LoraKernels<float> kernels = HWY_DYNAMIC_DISPATCH(KernelsF32)();
  return kernels;
}

const LoraKernels<std::uint16_t>& lora_kernels_bf16_portable() {
  static const LoraKernels<std::uint16_t> kernels = HWY_DYNAMIC_DISPATCH(KernelsBf16)();
  return kernels;
}

const LoraKernels<std::uint16_t>& lora_kernels_bf16() {
  const LoraKernels<std::uint16_t>* native = lora_kernels_bf16_avx512();
  return native ? *native : lora_kernels_bf16_portable();
}

std::int64_t packed_a_size(std::int64_t rank, std::int64_t d_in, std::int64_t pack) {
  return round_up(rank, kRankBlock) * round_up(d_in, pack);
}

std::int64_t packed_panels_size(std::int64_t depth, std::int64_t columns, std::int64_t pack) {
  return round_up(depth, pack) * round_up(columns, kColumnBlock);
}

std::int64_t packed_a_index(std::int64_t r, std::int64_t d, std::int64_t d_in, std::int64_t pack) {
  return (r / kRankBlock) * kRankBlock * round_up(d_in, pack) + (d / pack) * kRankBlock * pack +
         (r % kRankBlock) * pack + d % pack;
}

std::int64_t packed_panels_index(std::int64_t i, std::int64_t c, std::int64_t depth, std::int64_t columns,
                                 std::int64_t pack, std::int64_t panel) {
  const std::int64_t panel_begin = c / panel * panel;
  const std::int64_t rest = round_up(columns, kColumnBlock) - panel_begin;
  const std::int64_t width = rest < panel ? rest : panel;
  return panel_begin * round_up(depth, pack) + ((i / pack) * width + (c - panel_begin)) * pack + i % pack;
}

}  // namespace skein
#endif
