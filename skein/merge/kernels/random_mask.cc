#include "skein/merge/kernels/random_mask.h"

#include <algorithm>

#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV | HWY_SSSE3)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "skein/merge/kernels/random_mask.cc"
#include "hwy/foreach_target.h"
//
#include "skein/merge/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace skein::merge {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR

HWY_INLINE void group_words(StreamKey key, int model_idx, std::uint64_t group, std::uint32_t* words) {
  for (std::int64_t i = 0; i < kRandomGroup; ++i) {
    words[i] = random_word(key, model_idx, static_cast<std::int64_t>(group) * kRandomGroup + i);
  }
}

#else

using Wide = hn::CappedTag<std::uint64_t, 8>;
using VW = hn::Vec<Wide>;
inline constexpr std::int64_t kWideLanes = static_cast<std::int64_t>(hn::MaxLanes(Wide()));

// 32 x 32 -> 64 bits of the lower halves.
HWY_INLINE VW multiply(VW a, std::uint32_t b) {
  const hn::Repartition<std::uint32_t, Wide> narrow;
  return hn::MulEven(hn::BitCast(narrow, a), hn::BitCast(narrow, hn::Set(Wide(), b)));
}

// Philox on kWideLanes counters: a 32-bit word in the lower half of each lane; the upper halves hold rubbish on the
// way, which the multiplication ignores.
HWY_INLINE void philox_lanes(VW& c0, VW& c1, VW& c2, VW& c3, StreamKey key) {
  const Wide w;
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const auto p0 = multiply(c0, kPhiloxM0);
    const auto p1 = multiply(c2, kPhiloxM1);
    c0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p1), c1), hn::Set(w, key.k0));
    c1 = p1;
    c2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p0), c3), hn::Set(w, key.k1));
    c3 = p0;
    key = {key.k0 + kPhiloxW0, key.k1 + kPhiloxW1};
  }
}

// Two vectors of lower halves, of lanes 0 .. kWideLanes - 1 and the ones after, side by side.
HWY_INLINE void store_words(VW low, VW high, std::uint32_t* to) {
  const hn::Repartition<std::uint32_t, Wide> narrow;
  const auto joined = hn::ConcatEven(narrow, hn::BitCast(narrow, high), hn::BitCast(narrow, low));
  hn::StoreU(joined, narrow, to);
}

// The 64 words of one group.
HWY_INLINE void group_words(StreamKey key, int model_idx, std::uint64_t group, std::uint32_t* words) {
  const Wide w;
  const std::uint64_t first = group * 16;
  const auto high = hn::Set(w, first >> 32);
  const auto model = hn::Set(w, static_cast<std::uint32_t>(model_idx));
  for (std::int64_t lane = 0; lane < 16; lane += 2 * kWideLanes) {
    // The sixteen counters of a group share their upper word: first is a multiple of 16.
    VW a0 = hn::Iota(w, (first & 0xffffffffU) + static_cast<std::uint64_t>(lane));
    VW b0 = hn::Add(a0, hn::Set(w, static_cast<std::uint64_t>(kWideLanes)));
    VW a1 = high, b1 = high, a2 = model, b2 = model, a3 = hn::Zero(w), b3 = hn::Zero(w);
    philox_lanes(a0, a1, a2, a3, key);
    philox_lanes(b0, b1, b2, b3, key);
    store_words(a0, b0, words + lane);
    store_words(a1, b1, words + 16 + lane);
    store_words(a2, b2, words + 32 + lane);
    store_words(a3, b3, words + 48 + lane);
  }
}

#endif

// body(words, i, m): m words for elements first + i ...
template <class Body>
HWY_INLINE void for_each_group(StreamKey key, int model_idx, std::int64_t first, std::int64_t n, const Body& body) {
  alignas(64) std::uint32_t words[kRandomGroup];
  for (std::int64_t i = 0; i < n;) {
    const std::int64_t place = (first + i) % kRandomGroup;
    const std::int64_t m = std::min(kRandomGroup - place, n - i);
    group_words(key, model_idx, static_cast<std::uint64_t>((first + i) / kRandomGroup), words);
    body(words + place, i, m);
    i += m;
  }
}

void words(StreamKey key, int model_idx, std::int64_t first, std::int64_t n, std::uint32_t* to) {
  for_each_group(key, model_idx, first, n,
                 [&](const std::uint32_t* words, std::int64_t i, std::int64_t m) { std::copy_n(words, m, to + i); });
}

// x < y for unsigned words: flipping the sign bit makes them compare as signed.
HWY_INLINE hn::Mask<F> below(VU x, VU y) {
  const hn::RebindToSigned<F> s;
  const auto flip = hn::Set(U(), 0x80000000U);
  return hn::RebindMask(F(), hn::Lt(hn::BitCast(s, hn::Xor(x, flip)), hn::BitCast(s, hn::Xor(y, flip))));
}

template <class Threshold>
HWY_INLINE void keep_where(StreamKey key, int model_idx, std::int64_t first, std::int64_t n, float factor, float* delta,
                           const Threshold& threshold) {
  const auto factors = hn::Set(F(), factor);
  for_each_group(key, model_idx, first, n, [&](const std::uint32_t* words, std::int64_t i, std::int64_t m) {
    std::int64_t j = 0;
    for (; j + kLanes <= m; j += kLanes) {
      const auto kept = below(hn::LoadU(U(), words + j), threshold.vector(i + j));
      hn::StoreU(hn::IfThenElseZero(kept, hn::Mul(factors, hn::LoadU(F(), delta + i + j))), F(), delta + i + j);
    }
    for (; j < m; ++j) {
      delta[i + j] = words[j] < threshold.scalar(i + j) ? factor * delta[i + j] : 0;
    }
  });
}

struct OneThreshold {
  std::uint32_t value;
  HWY_INLINE VU vector(std::int64_t) const { return hn::Set(U(), value); }
  std::uint32_t scalar(std::int64_t) const { return value; }
};
struct Thresholds {
  const std::uint32_t* values;
  HWY_INLINE VU vector(std::int64_t i) const { return hn::LoadU(U(), values + i); }
  std::uint32_t scalar(std::int64_t i) const { return values[i]; }
};

void keep(StreamKey key, int model_idx, std::int64_t first, std::int64_t n, std::uint64_t threshold, float factor,
          float* delta) {
  const bool everything = threshold >> 32 != 0;
  if (!everything) {
    keep_where(key, model_idx, first, n, factor, delta, OneThreshold{static_cast<std::uint32_t>(threshold)});
  } else if (factor != 1) {
    for (std::int64_t i = 0; i < n; ++i) delta[i] *= factor;
  }
}

void keep_each(StreamKey key, int model_idx, std::int64_t first, std::int64_t n, const std::uint32_t* thresholds,
               float* delta) {
  keep_where(key, model_idx, first, n, 1, delta, Thresholds{thresholds});
}

RandomKernels Kernels() { return {words, keep, keep_each}; }

}  // namespace HWY_NAMESPACE
}  // namespace skein::merge
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace skein::merge {

HWY_EXPORT(Kernels);

RandomKernels random_kernels() { return HWY_DYNAMIC_DISPATCH(Kernels)(); }

}  // namespace skein::merge
#endif
