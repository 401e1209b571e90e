#include "skein/merge/kernels/combine.h"

#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV | HWY_SSSE3)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "skein/merge/kernels/combine.cc"
#include "hwy/foreach_target.h"
//
#include "skein/merge/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace skein::merge {
namespace HWY_NAMESPACE {
namespace {

using Elect = CombineRule::Elect;
using Deltas = std::span<const float* const>;

HWY_INLINE VF sign_of(VF x) {
  const F f;
  const auto one = hn::CopySign(hn::Set(f, 1.0F), x);
  return hn::IfThenZeroElse(hn::Eq(x, hn::Zero(f)), one);
}

template <Elect kElect>
HWY_INLINE VF votes(Deltas deltas, std::span<const float> weights, std::int64_t i) {
  const F f;
  auto sum = hn::Zero(f);
  for (std::size_t m = 0; m < deltas.size(); ++m) {
    const auto delta = hn::LoadU(f, deltas[m] + i);
    if constexpr (kElect == Elect::kCount) {
      sum = hn::Add(sum, sign_of(delta));
    } else if constexpr (kElect == Elect::kMass) {
      sum = hn::Add(sum, delta);
    } else {
      sum = hn::Add(sum, hn::Mul(hn::Set(f, weights[m]), delta));
    }
  }
  return sum;
}

HWY_INLINE void finish(VF mixed, std::int64_t i, const CombineRule& rule, const float* base, float* out) {
  const F f;
  if (rule.lambda != 1) mixed = hn::Mul(hn::Set(f, rule.lambda), mixed);
  hn::StoreU(base == nullptr ? mixed : hn::Add(hn::LoadU(f, base + i), mixed), f, out + i);
}

void combine_all(Deltas deltas, std::span<const float> weights, std::int64_t n, const CombineRule& rule,
                 const float* base, float* out) {
  const F f;
  for (std::int64_t i = 0; i < n; i += kLanes) {
    auto mixed = votes<Elect::kWeighted>(deltas, weights, i);
    if (rule.constant_divisor != 1) mixed = hn::Div(mixed, hn::Set(f, rule.constant_divisor));
    finish(mixed, i, rule, base, out);
  }
}

template <Elect kElect>
void combine_elected(Deltas deltas, std::span<const float> weights, std::int64_t n, const CombineRule& rule,
                     const float* base, float* out) {
  const F f;
  const auto zero = hn::Zero(f);
  const auto one = hn::Set(f, 1.0F);
  const auto of_zero = hn::Set(f, rule.zero_sign == CombineRule::ZeroSign::kPlus    ? 1.0F
                                  : rule.zero_sign == CombineRule::ZeroSign::kMinus ? -1.0F
                                                                                    : 0.0F);
  const bool by_weights = rule.divide == CombineRule::Divide::kWeights;
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const auto sum = votes<kElect>(deltas, weights, i);
    const auto elected = hn::IfThenElse(hn::Eq(sum, zero), of_zero, hn::CopySign(one, sum));
    auto mixed = zero, divisor = zero;
    for (std::size_t m = 0; m < deltas.size(); ++m) {
      const auto delta = hn::LoadU(f, deltas[m] + i);
      const auto weight = hn::Set(f, weights[m]);
      const auto weighted = hn::Mul(weight, delta);
      const auto kept = hn::Gt(hn::Mul(kElect == Elect::kWeighted ? weighted : delta, elected), zero);
      mixed = hn::Add(mixed, hn::IfThenElseZero(kept, weighted));
      divisor = hn::Add(divisor, hn::IfThenElseZero(kept, by_weights ? weight : one));
    }
    if (rule.divide != CombineRule::Divide::kNo) {
      if (rule.least_divisor > 0) divisor = hn::Max(divisor, hn::Set(f, rule.least_divisor));
      mixed = hn::Div(mixed, hn::IfThenElse(hn::Eq(divisor, zero), one, divisor));
    }
    finish(mixed, i, rule, base, out);
  }
}

void combine(Deltas deltas, std::span<const float> weights, std::int64_t n, const CombineRule& rule, const float* base,
             float* out) {
  switch (rule.elect) {
    case Elect::kNone:
      return combine_all(deltas, weights, n, rule, base, out);
    case Elect::kWeighted:
      return combine_elected<Elect::kWeighted>(deltas, weights, n, rule, base, out);
    case Elect::kMass:
      return combine_elected<Elect::kMass>(deltas, weights, n, rule, base, out);
    case Elect::kCount:
      return combine_elected<Elect::kCount>(deltas, weights, n, rule, base, out);
  }
}

template <Elect kElect>
std::int64_t majority_of(Deltas deltas, std::span<const float> weights, std::int64_t n) {
  const F f;
  std::int64_t balance = 0;
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const auto sum = votes<kElect>(deltas, weights, i);  // 0 behind the tile's end
    balance += static_cast<std::int64_t>(hn::CountTrue(f, hn::Gt(sum, hn::Zero(f))));
    balance -= static_cast<std::int64_t>(hn::CountTrue(f, hn::Lt(sum, hn::Zero(f))));
  }
  return balance;
}

std::int64_t majority(Deltas deltas, std::span<const float> weights, std::int64_t n, Elect elect) {
  if (elect == Elect::kMass) return majority_of<Elect::kMass>(deltas, weights, n);
  if (elect == Elect::kCount) return majority_of<Elect::kCount>(deltas, weights, n);
  return majority_of<Elect::kWeighted>(deltas, weights, n);
}

}  // namespace

CombineKernels CombineTable() { return {combine, majority}; }

}  // namespace HWY_NAMESPACE
}  // namespace skein::merge
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace skein::merge {

HWY_EXPORT(CombineTable);

CombineKernels combine_kernels() { return HWY_DYNAMIC_DISPATCH(CombineTable)(); }

}  // namespace skein::merge
#endif
