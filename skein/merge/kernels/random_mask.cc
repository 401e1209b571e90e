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
namespace {

// The words of a group and the next: word w of counter i of group g at words[64 g + 16 w + i].
inline constexpr std::int64_t kPairWords = 128;

#if HWY_TARGET == HWY_SCALAR

HWY_INLINE void pair_words(StreamKey key, int model_idx, std::uint64_t group, std::uint32_t half,
                           std::uint32_t* words) {
  for (std::uint64_t i = 0; i < 32; ++i) {
    const std::uint64_t c = group * 16 + i;
    const PhiloxWords four = philox({static_cast<std::uint32_t>(c), static_cast<std::uint32_t>(c >> 32),
                                     static_cast<std::uint32_t>(model_idx), half},
                                    key);
    for (std::size_t w = 0; w < 4; ++w) words[i / 16 * 64 + 16 * w + i % 16] = four[w];
  }
}

#else

using Wide = hn::CappedTag<std::uint64_t, 8>;
using VW = hn::Vec<Wide>;
inline constexpr std::int64_t kWideLanes = static_cast<std::int64_t>(hn::MaxLanes(Wide()));
// Vectors of counters that advance together, to hide the latency of a multiplication: what the registers hold.
inline constexpr int kChains = kWideLanes == 8 ? 4 : 2;

// 32 x 32 -> 64 bits of the lower halves.
HWY_INLINE VW multiply(VW a, std::uint32_t b) {
  const hn::Repartition<std::uint32_t, Wide> narrow;
  return hn::MulEven(hn::BitCast(narrow, a), hn::BitCast(narrow, hn::Set(Wide(), b)));
}

// Two vectors of lower halves, of lanes 0 .. kWideLanes - 1 and the ones after, side by side.
HWY_INLINE void store_words(VW low, VW high, std::uint32_t* to) {
  const hn::Repartition<std::uint32_t, Wide> narrow;
  const auto joined = hn::ConcatEven(narrow, hn::BitCast(narrow, high), hn::BitCast(narrow, low));
  hn::StoreU(joined, narrow, to);
}

// A 32-bit word in the lower half of each lane; the upper halves hold rubbish on the way, which the multiplication
// ignores.
HWY_INLINE void pair_words(StreamKey start, int model_idx, std::uint64_t group, std::uint32_t half,
                           std::uint32_t* words) {
  const Wide w;
  for (std::int64_t i = 0; i < 32; i += kChains * kWideLanes) {
    VW c0[kChains], c1[kChains], c2[kChains], c3[kChains];
    _Pragma("GCC unroll 4") for (int c = 0; c < kChains; ++c) {
      c0[c] = hn::Iota(w, group * 16 + static_cast<std::uint64_t>(i + c * kWideLanes));
      c1[c] = hn::ShiftRight<32>(c0[c]);
      c2[c] = hn::Set(w, static_cast<std::uint32_t>(model_idx));
      c3[c] = hn::Set(w, std::uint64_t{half});
    }
    StreamKey key = start;
    for (int round = 0; round < kPhiloxRounds; ++round) {
      _Pragma("GCC unroll 4") for (int c = 0; c < kChains; ++c) {
        const auto p0 = multiply(c0[c], kPhiloxM0);
        const auto p1 = multiply(c2[c], kPhiloxM1);
        c0[c] = hn::Xor(hn::Xor(hn::ShiftRight<32>(p1), c1[c]), hn::Set(w, key.k0));
        c1[c] = p1;
        c2[c] = hn::Xor(hn::Xor(hn::ShiftRight<32>(p0), c3[c]), hn::Set(w, key.k1));
        c3[c] = p0;
      }
      key = {key.k0 + kPhiloxW0, key.k1 + kPhiloxW1};
    }
    _Pragma("GCC unroll 2") for (int c = 0; c < kChains; c += 2) {
      const std::int64_t lane = i + c * kWideLanes;
      std::uint32_t* to = words + lane / 16 * 64 + lane % 16;
      store_words(c0[c], c0[c + 1], to);
      store_words(c1[c], c1[c + 1], to + 16);
      store_words(c2[c], c2[c + 1], to + 32);
      store_words(c3[c], c3[c + 1], to + 48);
    }
  }
}

#endif

inline constexpr std::int64_t kMaskStep = kLanes < 8 ? 8 : kLanes;

// kMaskStep bits to their bytes; compare(i) is the mask of kLanes elements from i on.
template <class Compare>
HWY_INLINE void store_bits(std::uint8_t* to, const Compare& compare) {
  if constexpr (kLanes >= 8) {
    hn::StoreMaskBits(U(), compare(0), to);
  } else {
    std::uint8_t byte = 0;
    for (std::int64_t i = 0; i < 8; i += kLanes) {
      alignas(8) std::uint8_t part[8] = {};
      hn::StoreMaskBits(U(), compare(i), part);
      byte = static_cast<std::uint8_t>(byte | part[0] << i);
    }
    *to = byte;
  }
}

HWY_INLINE hn::Mask<F> load_bits(const std::uint8_t* bits, std::int64_t i) {
  alignas(8) std::uint8_t bytes[8] = {};
  std::memcpy(bytes, bits + i / 8, (kLanes + 7) / 8);
  if constexpr (kLanes < 8) bytes[0] = static_cast<std::uint8_t>(bytes[0] >> (i % 8) & ((1U << kLanes) - 1));
  return hn::LoadMaskBits(F(), bytes);
}

// Elements whose upper half equals the threshold's: the lower one decides.
HWY_NOINLINE void decide_by_lower_half(StreamKey key, int model_idx, std::uint64_t group, const std::uint32_t* words,
                                       std::uint32_t threshold, std::uint8_t* bits) {
  for (std::int64_t p = 0; p < kRandomGroup; ++p) {
    const std::uint32_t upper = words[p % 64] >> (p < 64 ? 0 : 16) & 0xffffU;
    if (upper != threshold >> 16) continue;
    const auto element = static_cast<std::int64_t>(group) * kRandomGroup + p;
    if (random_number(key, model_idx, element) < threshold) {
      bits[p / 8] = static_cast<std::uint8_t>(bits[p / 8] | 1U << (p % 8));
    }
  }
}

void mask(StreamKey key, int model_idx, std::int64_t first, std::int64_t n, std::uint64_t threshold,
          std::uint8_t* bits) {
  if (threshold >> 32 != 0) {
    std::memset(bits, 0xff, static_cast<std::size_t>((n + kRandomGroup - 1) / kRandomGroup * kRandomGroup / 8));
    return;
  }
  const U u;
  const hn::RebindToSigned<F> s;
  const auto upper = hn::Set(s, static_cast<std::int32_t>(threshold >> 16));
  alignas(64) std::uint32_t pair[kPairWords];
  for (std::int64_t i = 0; i < n; i += kRandomGroup) {
    const auto group = static_cast<std::uint64_t>((first + i) / kRandomGroup);
    const bool is_second = i / kRandomGroup % 2 != 0;
    if (!is_second) pair_words(key, model_idx, group, 0, pair);
    const std::uint32_t* words = pair + (is_second ? 64 : 0);
    auto equal = hn::FirstN(s, 0);
    for (std::int64_t half = 0; half < 2; ++half) {
      for (std::int64_t p = 0; p < 64; p += kMaskStep) {
        store_bits(bits + (i + 64 * half + p) / 8, [&](std::int64_t j) HWY_ATTR {
          const auto word = hn::LoadU(u, words + p + j);
          const auto number = hn::BitCast(s, half == 0 ? hn::And(word, hn::Set(u, 0xffffU)) : hn::ShiftRight<16>(word));
          equal = hn::Or(equal, hn::Eq(number, upper));
          return hn::RebindMask(u, hn::Lt(number, upper));
        });
      }
    }
    if ((threshold & 0xffffU) != 0 && !hn::AllFalse(s, equal)) {
      decide_by_lower_half(key, model_idx, group, words, static_cast<std::uint32_t>(threshold), bits + i / 8);
    }
  }
}

void keep_masked(const std::uint8_t* bits, std::int64_t n, float factor, float* delta) {
  const auto factors = hn::Set(F(), factor);
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const auto kept = hn::Mul(factors, hn::LoadU(F(), delta + i));
    hn::StoreU(hn::IfThenElseZero(load_bits(bits, i), kept), F(), delta + i);
  }
}

void numbers(StreamKey key, int model_idx, std::int64_t first, std::int64_t n, std::uint32_t* numbers) {
  alignas(64) std::uint32_t upper[kPairWords], lower[kPairWords];
  for (std::int64_t i = 0; i < n;) {
    const std::int64_t place = (first + i) % kRandomGroup;
    const std::int64_t m = std::min(kRandomGroup - place, n - i);
    const auto group = static_cast<std::uint64_t>((first + i) / kRandomGroup);
    pair_words(key, model_idx, group, 0, upper);
    pair_words(key, model_idx, group, 1, lower);
    for (std::int64_t p = place; p < place + m; ++p) {
      const int shift = p < 64 ? 0 : 16;
      numbers[i + p - place] = (upper[p % 64] >> shift & 0xffffU) << 16 | (lower[p % 64] >> shift & 0xffffU);
    }
    i += m;
  }
}

}  // namespace

RandomKernels RandomTable() { return {mask, keep_masked, numbers}; }

}  // namespace HWY_NAMESPACE
}  // namespace skein::merge
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace skein::merge {

HWY_EXPORT(RandomTable);

RandomKernels random_kernels() { return HWY_DYNAMIC_DISPATCH(RandomTable)(); }

}  // namespace skein::merge
#endif
