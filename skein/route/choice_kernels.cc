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

float inverse_deviation(const float* x, std::int64_t d) {
  const F f;
  auto sums = hn::Zero(f);
  std::int64_t i = 0;
  for (; i + kVectorLanes <= d; i += kVectorLanes) sums = hn::Add(sums, hn::LoadU(f, x + i));
  float sum = hn::GetLane(hn::SumOfLanes(f, sums));
  for (; i < d; ++i) sum += x[i];
  const float mean = sum / static_cast<float>(d);
  auto squares = hn::Zero(f);
  const auto means = hn::Set(f, mean);
  for (i = 0; i + kVectorLanes <= d; i += kVectorLanes) {
    const auto centred = hn::Sub(hn::LoadU(f, x + i), means);
    squares = hn::MulAdd(centred, centred, squares);
  }
  float square = hn::GetLane(hn::SumOfLanes(f, squares));
  for (; i < d; ++i) square += (x[i] - mean) * (x[i] - mean);
  return 1.0F / std::sqrt(square / static_cast<float>(d) + 1e-5F);
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

void choose(float* scores, const float* bias, float factor, std::int64_t columns, std::int64_t k,
            bool softmax_over_chosen, std::int32_t* ids, float* weights) {
  const float largest = biased_scores(scores, bias, factor, columns);
  // With the sum Z over all: p / (sum of chosen p + 1e-6) = e / (sum of chosen e + 1e-6 Z).
  float rest = 0;
  if (!softmax_over_chosen && largest > kNothing) rest = 1e-6F * sum_of_exponentials(scores, largest, columns);
  float chosen = 0;
  for (std::int64_t i = 0; i < k; ++i) {
    const float best = i == 0 ? largest : largest_of(scores, columns);
    ids[i] = 0;
    weights[i] = 0;
    if (!(best > kNothing)) continue;
    const std::int64_t c = first_equal(scores, best, columns);
    scores[c] = kNothing;
    ids[i] = static_cast<std::int32_t>(c);
    weights[i] = std::exp(best - largest);
    chosen += weights[i];
  }
  if (chosen == 0) return;
  for (std::int64_t i = 0; i < k; ++i) weights[i] /= chosen + rest;
}

ChoiceKernels Kernels() { return {inverse_deviation, widen_bf16, choose}; }

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
