#include "skein/route/choice_kernels.h"

#include <cmath>
#include <limits>

#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "skein/route/choice_kernels.cc"
#include "hwy/foreach_target.h"
//
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "skein/base/half.h"

HWY_BEFORE_NAMESPACE();
namespace skein {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::CappedTag<float, 16>;
inline constexpr std::int64_t kVectorLanes = static_cast<std::int64_t>(hn::MaxLanes(F()));
inline constexpr float kNothing = -std::numeric_limits<float>::infinity();

// A sum over [0, d) in four chains; add_to adds the terms of one vector, or one term.
template <class AddTo>
HWY_INLINE float sum_over(std::int64_t d, const AddTo& add_to) {
  const F f;
  auto s0 = hn::Zero(f), s1 = hn::Zero(f), s2 = hn::Zero(f), s3 = hn::Zero(f);
  std::int64_t i = 0;
  for (; i + 4 * kVectorLanes <= d; i += 4 * kVectorLanes) {
    s0 = add_to.vector(s0, i);
    s1 = add_to.vector(s1, i + kVectorLanes);
    s2 = add_to.vector(s2, i + 2 * kVectorLanes);
    s3 = add_to.vector(s3, i + 3 * kVectorLanes);
  }
  for (; i + kVectorLanes <= d; i += kVectorLanes) s0 = add_to.vector(s0, i);
  float sum = hn::GetLane(hn::SumOfLanes(f, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; i < d; ++i) sum = add_to.scalar(sum, i);
  return sum;
}

struct AddElement {
  const float* x;
  HWY_INLINE hn::Vec<F> vector(hn::Vec<F> sum, std::int64_t i) const { return hn::Add(sum, hn::LoadU(F(), x + i)); }
  float scalar(float sum, std::int64_t i) const { return sum + x[i]; }
};

struct AddSquare {
  const float* x;
  float mean;
  HWY_INLINE hn::Vec<F> vector(hn::Vec<F> sum, std::int64_t i) const {
    const auto centred = hn::Sub(hn::LoadU(F(), x + i), hn::Set(F(), mean));
    return hn::MulAdd(centred, centred, sum);
  }
  float scalar(float sum, std::int64_t i) const { return sum + (x[i] - mean) * (x[i] - mean); }
};

struct AddProduct {
  const float* x;
  const float* y;
  HWY_INLINE hn::Vec<F> vector(hn::Vec<F> sum, std::int64_t i) const {
    return hn::MulAdd(hn::LoadU(F(), x + i), hn::LoadU(F(), y + i), sum);
  }
  float scalar(float sum, std::int64_t i) const { return sum + x[i] * y[i]; }
};

RowStatistics statistics(const float* x, std::int64_t d) {
  const auto size = static_cast<float>(d);
  const float mean = sum_over(d, AddElement{x}) / size;
  const float squares = sum_over(d, AddSquare{x, mean});
  return {1.0F / std::sqrt(squares / size + 1e-5F), std::sqrt(squares + size * mean * mean)};
}

void widen_bf16(const std::uint16_t* x, std::int64_t d, float* to) {
  const F f;
  const hn::RebindToUnsigned<F> u;
  const hn::Rebind<std::uint16_t, F> half;
  std::int64_t i = 0;
  for (; i + kVectorLanes <= d; i += kVectorLanes) {
    hn::StoreU(hn::BitCast(f, hn::ShiftLeft<16>(hn::PromoteTo(u, hn::LoadU(half, x + i)))), f, to + i);
  }
  for (; i < d; ++i) to[i] = bf16_to_f32(x[i]);
}

// s into scores; returns the largest.
HWY_INLINE float biased_scores(float* scores, const float* bias, float factor, std::int64_t columns) {
  const F f;
  const auto nothing = hn::Set(f, kNothing);
  auto largest = nothing;
  for (std::int64_t c = 0; c < columns; c += kVectorLanes) {
    auto s = hn::MulAdd(hn::LoadU(f, scores + c), hn::Set(f, factor), hn::LoadU(f, bias + c));
    s = hn::IfThenElse(hn::IsNaN(s), nothing, s);
    largest = hn::Max(largest, s);
    hn::StoreU(s, f, scores + c);
  }
  return hn::GetLane(hn::MaxOfLanes(f, largest));
}

HWY_INLINE float sum_of_exponentials(const float* scores, float largest, std::int64_t columns) {
  const F f;
  auto sums = hn::Zero(f);
  for (std::int64_t c = 0; c < columns; c += kVectorLanes) {
    sums = hn::Add(sums, hn::Exp(f, hn::Sub(hn::LoadU(f, scores + c), hn::Set(f, largest))));
  }
  return hn::GetLane(hn::SumOfLanes(f, sums));
}

HWY_INLINE float largest_of(const float* scores, std::int64_t columns) {
  const F f;
  auto largest = hn::Set(f, kNothing);
  for (std::int64_t c = 0; c < columns; c += kVectorLanes) largest = hn::Max(largest, hn::LoadU(f, scores + c));
  return hn::GetLane(hn::MaxOfLanes(f, largest));
}

HWY_INLINE std::int64_t first_equal(const float* scores, float value, std::int64_t columns) {
  const F f;
  for (std::int64_t c = 0; c < columns; c += kVectorLanes) {
    const auto found = hn::FindFirstTrue(f, hn::Eq(hn::LoadU(f, scores + c), hn::Set(f, value)));
    if (found >= 0) return c + found;
  }
  return 0;
}

void sharpen(float* scores, const float* bias, const float* radius, float norm, const float* row, const float* gates,
             std::int64_t d, std::int64_t columns, std::int64_t k, float* room) {
  const F f;
  const auto norms = hn::Set(f, norm);
  for (std::int64_t c = 0; c < columns; c += kVectorLanes) {
    const auto s = hn::Add(hn::LoadU(f, scores + c), hn::LoadU(f, bias + c));
    hn::StoreU(hn::NegMulAdd(norms, hn::LoadU(f, radius + c), s), f, room + c);
  }
  // The k-th largest of what the scores are at least.
  float bar = kNothing;
  for (std::int64_t i = 0; i < k; ++i) {
    bar = largest_of(room, columns);
    if (!(bar > kNothing)) break;
    room[first_equal(room, bar, columns)] = kNothing;
  }
  for (std::int64_t c = 0; c < columns; c += kVectorLanes) {
    const auto s = hn::Add(hn::LoadU(f, scores + c), hn::LoadU(f, bias + c));
    const auto at_most = hn::MulAdd(norms, hn::LoadU(f, radius + c), s);
    if (hn::AllFalse(f, hn::Ge(at_most, hn::Set(f, bar)))) continue;
    for (std::int64_t i = c; i < c + kVectorLanes; ++i) {
      if (bias[i] == kNothing || !(scores[i] + bias[i] + norm * radius[i] >= bar)) continue;
      scores[i] = sum_over(d, AddProduct{row, gates + i * d});
    }
  }
}

void choose(float* scores, const float* bias, float factor, std::int64_t columns, std::int64_t k,
            bool softmax_over_chosen, float top_p, std::int32_t* ids, float* weights) {
  const float largest = biased_scores(scores, bias, factor, columns);
  // With the sum Z over all: p / (sum of chosen p + 1e-6) = e / (sum of chosen e + 1e-6 Z).
  float rest = 0;
  float enough = std::numeric_limits<float>::infinity();  // of the sum of chosen e
  if (largest > kNothing && (!softmax_over_chosen || top_p < 1)) {
    const float all = sum_of_exponentials(scores, largest, columns);
    if (!softmax_over_chosen) rest = 1e-6F * all;
    if (top_p < 1) enough = top_p * all;
  }
  float chosen = 0;
  for (std::int64_t i = 0; i < k; ++i) {
    const float best = i == 0 ? largest : largest_of(scores, columns);
    ids[i] = 0;
    weights[i] = 0;
    if (!(best > kNothing) || chosen >= enough) continue;
    const std::int64_t c = first_equal(scores, best, columns);
    scores[c] = kNothing;
    ids[i] = static_cast<std::int32_t>(c);
    weights[i] = best == largest ? 1.0F : std::exp(best - largest);
    chosen += weights[i];
  }
  if (chosen == 0) return;
  for (std::int64_t i = 0; i < k; ++i) weights[i] /= chosen + rest;
}

ChoiceKernels Kernels() { return {statistics, widen_bf16, sharpen, choose}; }

}  // namespace HWY_NAMESPACE
}  // namespace skein
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace skein {

HWY_EXPORT(Kernels);

const ChoiceKernels& choice_kernels() {
  static const ChoiceKernels kernels = HWY_DYNAMIC_DISPATCH(Kernels)();
  return kernels;
}

}  // namespace skein
#endif
