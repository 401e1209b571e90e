#include "skein/merge/kernels/select.h"

#include <algorithm>

#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV | HWY_SSSE3)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "skein/merge/kernels/select.cc"
#include "hwy/foreach_target.h"
//
#include "skein/base/half.h"
#include "skein/merge/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace skein::merge {
namespace HWY_NAMESPACE {
namespace {

struct KeyOfBf16 {
  HWY_INLINE VU operator()(VF delta) const {
    const U u;
    const auto bits = magnitude_bits(delta);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u, 1));
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(u, 0x7fff))));
    return hn::Min(rounded, hn::Set(u, 0x7fff));
  }
};
struct KeyOfF16 {
  HWY_INLINE VU operator()(VF delta) const { return hn::And(to_f16(delta), hn::Set(U(), 0x7fff)); }
};
struct KeyOfF32 {
  HWY_INLINE VU operator()(VF delta) const { return hn::ShiftRight<16>(magnitude_bits(delta)); }
};

template <class Key>
HWY_INLINE KeyRange slots_of(const float* delta, std::int64_t n, std::uint32_t* slots, const Key& key_of) {
  const U u;
  static_assert(kCounterCopies == 4);
  const std::uint32_t copies[16] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
  auto lowest = hn::Set(u, kKeys);
  auto highest = hn::Zero(u);
  for (std::int64_t i = 0; i < n; i += kLanes) {
    // A tile is filled up with zeros, which the range does not count.
    const auto key = key_of(hn::LoadU(F(), delta + i));
    highest = hn::Max(highest, key);
    lowest = hn::Min(lowest, hn::IfThenElse(hn::Eq(key, hn::Zero(u)), hn::Set(u, kKeys), key));
    hn::StoreU(hn::Or(hn::ShiftLeft<2>(key), hn::LoadU(u, copies + i % 16)), u, slots + i);
  }
  return {hn::GetLane(hn::MinOfLanes(u, lowest)), hn::GetLane(hn::MaxOfLanes(u, highest))};
}

KeyRange slots(const float* delta, std::int64_t n, DType type, std::uint32_t* slots) {
  switch (type) {
    case DType::kBF16:
      return slots_of(delta, n, slots, KeyOfBf16());
    case DType::kF16:
      return slots_of(delta, n, slots, KeyOfF16());
    default:
      return slots_of(delta, n, slots, KeyOfF32());
  }
}

// Bits of magnitudes and the bounds lie in [0, 2^31]; less 2^30 they compare as signed numbers.
HWY_INLINE hn::Mask<F> between(VF value, hn::Vec<hn::RebindToSigned<F>> lo, hn::Vec<hn::RebindToSigned<F>> hi) {
  const hn::RebindToSigned<F> s;
  const auto bits = hn::Sub(hn::BitCast(s, magnitude_bits(value)), hn::Set(s, 1 << 30));
  return hn::RebindMask(F(), hn::AndNot(hn::Lt(bits, lo), hn::Lt(bits, hi)));
}

HWY_INLINE std::int32_t shifted(std::uint32_t bound) {
  return static_cast<std::int32_t>(static_cast<std::int64_t>(bound) - (std::int64_t{1} << 30));
}

std::int64_t count_between(const float* delta, std::int64_t n, std::uint32_t lo, std::uint32_t hi) {
  const hn::RebindToSigned<F> s;
  const auto from = hn::Set(s, shifted(lo));
  const auto to = hn::Set(s, shifted(hi));
  std::int64_t count = 0;
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    count += static_cast<std::int64_t>(hn::CountTrue(F(), between(hn::LoadU(F(), delta + i), from, to)));
  }
  if (i < n) {
    const auto used = hn::FirstN(F(), static_cast<std::size_t>(n - i));
    count += static_cast<std::int64_t>(hn::CountTrue(F(), hn::And(used, between(hn::LoadU(F(), delta + i), from, to))));
  }
  return count;
}

void keep_between(float* delta, std::int64_t n, std::uint32_t lo, std::uint32_t hi) {
  const hn::RebindToSigned<F> s;
  const auto from = hn::Set(s, shifted(lo));
  const auto to = hn::Set(s, shifted(hi));
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const auto value = hn::LoadU(F(), delta + i);
    hn::StoreU(hn::IfThenElseZero(between(value, from, to), value), F(), delta + i);
  }
}

std::int64_t keep_and_count(float* delta, std::int64_t n, std::uint32_t lo, std::uint32_t hi, std::uint32_t from,
                            std::uint32_t to) {
  const hn::RebindToSigned<F> s;
  const auto kept_from = hn::Set(s, shifted(lo)), kept_to = hn::Set(s, shifted(hi));
  const auto counted_from = hn::Set(s, shifted(from)), counted_to = hn::Set(s, shifted(to));
  std::int64_t count = 0;
  std::int64_t i = 0;
  if (hi == std::uint32_t{1} << 31 && lo == from) {
    // TIES: the counted run is the lower end of an open range, so one comparison does for both.
    for (; i + kLanes <= n; i += kLanes) {
      const auto value = hn::LoadU(F(), delta + i);
      const auto bits = hn::Sub(hn::BitCast(s, magnitude_bits(value)), hn::Set(s, 1 << 30));
      const auto dropped = hn::Lt(bits, kept_from);
      count += static_cast<std::int64_t>(hn::CountTrue(s, hn::AndNot(dropped, hn::Lt(bits, counted_to))));
      hn::StoreU(hn::IfThenZeroElse(hn::RebindMask(F(), dropped), value), F(), delta + i);
    }
  }
  for (; i < n; i += kLanes) {
    const auto value = hn::LoadU(F(), delta + i);
    auto counted = between(value, counted_from, counted_to);
    if (i + kLanes > n) counted = hn::And(counted, hn::FirstN(F(), static_cast<std::size_t>(n - i)));
    count += static_cast<std::int64_t>(hn::CountTrue(F(), counted));
    hn::StoreU(hn::IfThenElseZero(between(value, kept_from, kept_to), value), F(), delta + i);
  }
  return count;
}

}  // namespace

SelectKernels SelectTable() { return {slots, count_between, keep_between, keep_and_count}; }

}  // namespace HWY_NAMESPACE
}  // namespace skein::merge
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace skein::merge {

HWY_EXPORT(SelectTable);

SelectKernels select_kernels() { return HWY_DYNAMIC_DISPATCH(SelectTable)(); }

std::uint32_t magnitude_key(DType type, std::uint32_t bits) {
  switch (type) {
    case DType::kBF16:
      return std::min<std::uint32_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16, 0x7fffU);
    case DType::kF16:
      return f32_to_f16(std::bit_cast<float>(bits));
    default:
      return bits >> 16;
  }
}

std::uint32_t first_bits_of_key(DType type, std::uint32_t key) {
  std::uint32_t below = 0, found = std::uint32_t{1} << 31;  // the answer is in [below, found]
  while (below < found) {
    const std::uint32_t middle = below + (found - below) / 2;
    if (magnitude_key(type, middle) >= key) {
      found = middle;
    } else {
      below = middle + 1;
    }
  }
  return found;
}

void count_slots(const std::uint32_t* slots, std::int64_t n, std::uint32_t* counters) {
  std::int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    ++counters[slots[i]];
    ++counters[slots[i + 1]];
    ++counters[slots[i + 2]];
    ++counters[slots[i + 3]];
  }
  for (; i < n; ++i) ++counters[slots[i]];
}

}  // namespace skein::merge
#endif
