#include "skein/merge/kernels/sums.h"

#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV | HWY_SSSE3)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "skein/merge/kernels/sums.cc"
#include "hwy/foreach_target.h"
//
#include "skein/merge/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace skein::merge {
namespace HWY_NAMESPACE {
namespace {

using D = hn::CappedTag<double, 8>;
using Narrow = hn::Rebind<float, D>;
using VD = hn::Vec<D>;
inline constexpr int kDoubleLanes = static_cast<int>(hn::MaxLanes(D()));
inline constexpr int kParts = 16 / kDoubleLanes;

// term(i): the terms of elements i .. i + kDoubleLanes. Tiles are zero behind their end, and so are the terms.
template <class Term>
HWY_INLINE double sum_of(std::int64_t n, const Term& term) {
  VD sums[kParts];
  _Pragma("GCC unroll 16") for (int part = 0; part < kParts; ++part) sums[part] = hn::Zero(D());
  for (std::int64_t i = 0; i < n; i += 16) {
    _Pragma("GCC unroll 16") for (int part = 0; part < kParts; ++part) sums[part] =
        hn::Add(sums[part], term(i + part * kDoubleLanes));
  }
  alignas(64) double lanes[16];
  _Pragma("GCC unroll 16") for (int part = 0; part < kParts; ++part)
      hn::StoreU(sums[part], D(), lanes + part * kDoubleLanes);
  for (int width = 8; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

double absolute(const float* tile, std::int64_t n) {
  const Narrow f;
  const std::int64_t whole = n / 64 * 64;
  const auto at = [&](std::int64_t i) { return hn::Abs(hn::LoadU(f, tile + i)); };
  return sum_of(whole / 4,
                [&](std::int64_t i) {
                  const std::int64_t from = i / 16 * 64 + i % 16;
                  return hn::PromoteTo(
                      D(), hn::Add(hn::Add(at(from), at(from + 16)), hn::Add(at(from + 32), at(from + 48))));
                }) +
         sum_of(n - whole, [&](std::int64_t i) { return hn::PromoteTo(D(), at(whole + i)); });
}

double dot(const float* a, const float* b, std::int64_t n) {
  return sum_of(n, [&](std::int64_t i) {
    return hn::Mul(hn::PromoteTo(D(), hn::LoadU(Narrow(), a + i)), hn::PromoteTo(D(), hn::LoadU(Narrow(), b + i)));
  });
}

}  // namespace

SumKernels SumTable() { return {absolute, dot}; }

}  // namespace HWY_NAMESPACE
}  // namespace skein::merge
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace skein::merge {

HWY_EXPORT(SumTable);

SumKernels sum_kernels() { return HWY_DYNAMIC_DISPATCH(SumTable)(); }

}  // namespace skein::merge
#endif
