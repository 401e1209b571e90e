#include "skein/nn/kernels/quantised_rows.h"

#include <algorithm>
#include <vector>

#include "skein/nn/kernels/quantised_rows_bf16.h"
#include "skein/nn/kernels/row_dots_bf16.h"

// Accumulators live in registers only if the loops over them disappear; -O2 alone keeps such loops.
#undef SKEIN_UNROLL
#define SKEIN_UNROLL _Pragma("GCC unroll 8")

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "skein/nn/kernels/quantised_rows.cc"
#include <hwy/foreach_target.h>  // compiles what follows once per target

#include <hwy/highway.h>

#include "skein/nn/kernels/element-inl.h"

HWY_BEFORE_NAMESPACE();
namespace skein::HWY_NAMESPACE {

using Bytes = hn::Rebind<std::uint8_t, Floats>;
using Words = hn::RebindToUnsigned<Floats>;

// One block's numbers, a vector at a time.
template <int kBits>
class Block;

template <>
class Block<8> {
 public:
  HWY_INLINE Block(const std::uint8_t* codes, float scale)
      : codes_(reinterpret_cast<const std::int8_t*>(codes)), scale_(hn::Set(Floats(), scale)) {}
  // Numbers [i, i + lanes()).
  HWY_INLINE Vec numbers(std::int64_t i) const {
    const hn::Rebind<std::int8_t, Floats> narrow;
    const hn::RebindToSigned<Floats> wide;
    return hn::Mul(hn::ConvertTo(Floats(), hn::PromoteTo(wide, hn::LoadU(narrow, codes_ + i))), scale_);
  }

 private:
  const std::int8_t* codes_;
  Vec scale_;
};

// The levels times the scale are a table in one register (AVX-512) or two (AVX2).
template <>
class Block<4> {
 public:
#if HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86
  HWY_INLINE Block(const std::uint8_t* codes, float scale)
      : codes_(codes),
        low_(hn::Mul(load(kNormalFloatLevels), hn::Set(Floats(), scale))),
        high_(hn::Mul(load(kNormalFloatLevels + 16 - lanes()), hn::Set(Floats(), scale))) {}
  HWY_INLINE Vec numbers(std::int64_t i) const {
    const Words words;
    const auto bytes = hn::PromoteTo(words, hn::LoadU(Bytes(), codes_ + i % 32));
    const auto codes = i < 32 ? hn::And(bytes, hn::Set(words, 15)) : hn::ShiftRight<4>(bytes);
    if (lanes() == 16) return hn::TableLookupLanes(low_, hn::IndicesFromVec(Floats(), codes));
    const auto indices = hn::IndicesFromVec(Floats(), hn::And(codes, hn::Set(words, 7)));
    const auto is_low = hn::RebindMask(Floats(), hn::Lt(codes, hn::Set(words, 8)));
    return hn::IfThenElse(is_low, hn::TableLookupLanes(low_, indices), hn::TableLookupLanes(high_, indices));
  }

 private:
  const std::uint8_t* codes_;
  Vec low_, high_;
#else
  HWY_INLINE Block(const std::uint8_t* codes, float scale) : codes_(codes) {
    for (int level = 0; level < 16; ++level) table_[level] = kNormalFloatLevels[level] * scale;
  }
  HWY_INLINE Vec numbers(std::int64_t i) const {
    float values[hn::MaxLanes(Floats())];
    for (std::int64_t lane = 0; lane < lanes(); ++lane) {
      values[lane] = table_[codes_[(i + lane) % 32] >> ((i + lane) / 32 * 4) & 15];
    }
    return load(values);
  }

 private:
  const std::uint8_t* codes_;
  float table_[16];
#endif
};

constexpr std::int64_t kScales = 64;  // of a row, widened at a time

HWY_INLINE void widen_scales(const std::uint16_t* from, std::int64_t count, float* to) {
  const hn::Rebind<hwy::float16_t, Floats> narrow;
  std::int64_t i = 0;
  for (; i + lanes() <= count; i += lanes()) {
    store(hn::PromoteTo(Floats(), hn::LoadU(narrow, reinterpret_cast<const hwy::float16_t*>(from + i))), to + i);
  }
  for (; i < count; ++i) to[i] = f16_to_f32(from[i]);
}

template <int kBits, typename T>
void restore(const QuantisedRows& w, std::int64_t begin, std::int64_t end, T* out) {
  constexpr std::int64_t kBlock = QuantisedRows::block_size(kBits);
  const std::int64_t blocks = w.blocks();
  float scales[kScales];
  for (std::int64_t row = begin; row < end; ++row, out += w.depth) {
    for (std::int64_t first = 0; first < blocks; first += kScales) {
      const std::int64_t last = std::min(first + kScales, blocks);
      widen_scales(w.scales + row * blocks + first, last - first, scales);
      for (std::int64_t b = first; b < last; ++b) {
        const Block<kBits> block(w.codes + (row * blocks + b) * QuantisedRows::kBlockBytes, scales[b - first]);
        for (std::int64_t i = 0; i < kBlock; i += lanes()) store(block.numbers(i), out + b * kBlock + i);
      }
    }
  }
}

// kRows x kColumns outputs in the order of row_dots' tiles: an accumulator each, what is no whole vector at the end.
template <int kBits, int kRows, int kColumns>
void tile(const RowDots& shape, const float* HWY_RESTRICT x, const QuantisedRows& w, std::int64_t column,
          const float* bias, float* HWY_RESTRICT y) {
  constexpr std::int64_t kBlock = QuantisedRows::block_size(kBits);
  const Floats d;
  const std::int64_t depth = shape.depth, whole = depth / lanes() * lanes(), blocks = w.blocks();
  Vec sums[kRows][kColumns];
  SKEIN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    SKEIN_UNROLL
    for (int c = 0; c < kColumns; ++c) sums[r][c] = hn::Zero(d);
  }
  float scales[kColumns][kScales], rest[kColumns][hn::MaxLanes(d)];
  for (std::int64_t first = 0; first < blocks; first += kScales) {
    const std::int64_t last = std::min(first + kScales, blocks);
    for (int c = 0; c < kColumns; ++c) {
      widen_scales(w.scales + (column + c) * blocks + first, last - first, scales[c]);
    }
    SKEIN_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      for (std::int64_t b = first; b < last; ++b) {
        const std::int64_t end = std::min(whole - b * kBlock, kBlock);
        const std::uint8_t* codes = w.codes + ((column + c) * blocks + b) * QuantisedRows::kBlockBytes;
        const Block<kBits> block(codes, scales[c][b - first]);
        const auto multiply = [&](std::int64_t i) {
          const Vec numbers = block.numbers(i);
          SKEIN_UNROLL
          for (int r = 0; r < kRows; ++r) {
            sums[r][c] = hn::MulAdd(load(x + r * shape.x_stride + b * kBlock + i), numbers, sums[r][c]);
          }
        };
        if (end == kBlock) {
          SKEIN_UNROLL
          for (std::int64_t i = 0; i < kBlock; i += lanes()) multiply(i);
        } else {
          for (std::int64_t i = 0; i < end; i += lanes()) multiply(i);
          if (b * kBlock + end < depth) store(block.numbers(end), rest[c]);
        }
      }
    }
  }
  SKEIN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    SKEIN_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      float sum = hn::GetLane(hn::SumOfLanes(d, sums[r][c]));
      for (std::int64_t k = whole; k < depth; ++k) sum += x[r * shape.x_stride + k] * rest[c][k - whole];
      y[r * shape.y_stride + column + c] = bias == nullptr ? sum : sum + bias[column + c];
    }
  }
}

template <int kBits, int kColumns>
void rows_of(const RowDots& shape, const float* x, const QuantisedRows& w, std::int64_t column, const float* bias,
             float* y) {
  constexpr decltype(&tile<kBits, 1, kColumns>) kTiles[kFewRows] = {tile<kBits, 1, kColumns>, tile<kBits, 2, kColumns>,
                                                                    tile<kBits, 3, kColumns>, tile<kBits, 4, kColumns>};
  kTiles[shape.rows - 1](shape, x, w, column, bias, y);
}

template <int kBits>
void few_dots(const RowDots& shape, const float* x, const QuantisedRows& w, const float* bias, float* y,
              std::int64_t begin, std::int64_t end) {
  constexpr int kColumns = 4;
  std::int64_t column = begin;
  for (; column + kColumns <= end; column += kColumns) rows_of<kBits, kColumns>(shape, x, w, column, bias, y);
  for (; column < end; ++column) rows_of<kBits, 1>(shape, x, w, column, bias, y);
}

void few_dots_entry(const RowDots& shape, const float* x, const QuantisedRows& w, const float* bias, float* y,
                    std::int64_t begin, std::int64_t end) {
  (w.bits == 8 ? few_dots<8> : few_dots<4>)(shape, x, w, bias, y, begin, end);
}
void restore_f32(const QuantisedRows& w, std::int64_t begin, std::int64_t end, float* out) {
  (w.bits == 8 ? restore<8, float> : restore<4, float>)(w, begin, end, out);
}
void restore_bf16(const QuantisedRows& w, std::int64_t begin, std::int64_t end, std::uint16_t* out) {
  if (HWY_TARGET == HWY_AVX3 && multiplies_bf16()) return restore_rows_avx512_bf16(w, begin, end, out);
  (w.bits == 8 ? restore<8, std::uint16_t> : restore<4, std::uint16_t>)(w, begin, end, out);
}
// Whether few rows of bf16 are multiplied in registers.
bool has_few_dots_bf16() { return HWY_TARGET == HWY_AVX3 && multiplies_bf16(); }

}  // namespace skein::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace skein {

HWY_EXPORT(few_dots_entry);
HWY_EXPORT(restore_f32);
HWY_EXPORT(restore_bf16);
HWY_EXPORT(has_few_dots_bf16);

namespace {

// Some rows of w after the other in a buffer, where all rows of x meet them.
template <typename T, typename Restore, typename Dots>
void by_panels(const RowDots& shape, const T* x, const QuantisedRows& w, const T* bias, T* y, std::int64_t begin,
               std::int64_t end, const Restore& restore, const Dots& dots) {
  constexpr std::int64_t kPanelBytes = 64 << 10;
  const std::int64_t row_bytes = std::max<std::int64_t>(1, w.depth * static_cast<std::int64_t>(sizeof(T)));
  const std::int64_t panel = std::max<std::int64_t>(4, kPanelBytes / row_bytes / 4 * 4);
  thread_local std::vector<T> numbers;
  numbers.resize(static_cast<std::size_t>(panel * w.depth + QuantisedRows::block_size(w.bits)));
  for (std::int64_t first = begin; first < end; first += panel) {
    const std::int64_t count = std::min(panel, end - first);
    restore(w, first, first + count, numbers.data());
    dots(shape, x, numbers.data(), bias == nullptr ? nullptr : bias + first, y + first, 0, count);
  }
}

}  // namespace

const float kNormalFloatLevels[16] = {
    -1.0F,
    -0.6961928009986877F,
    -0.5250730514526367F,
    -0.39491748809814453F,
    -0.28444138169288635F,
    -0.18477343022823334F,
    -0.09105003625154495F,
    0.0F,
    0.07958029955625534F,
    0.16093020141124725F,
    0.24611230194568634F,
    0.33791524171829224F,
    0.44070982933044434F,
    0.5626170039176941F,
    0.7229568362236023F,
    1.0F,
};

void restore_rows_f32(const QuantisedRows& w, std::int64_t begin, std::int64_t end, float* out) {
  HWY_DYNAMIC_DISPATCH(restore_f32)(w, begin, end, out);
}
void restore_rows_bf16(const QuantisedRows& w, std::int64_t begin, std::int64_t end, std::uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(restore_bf16)(w, begin, end, out);
}

void quantised_dots_f32(const RowDots& shape, const float* x, const QuantisedRows& w, const float* bias, float* y,
                        std::int64_t begin, std::int64_t end) {
  if (shape.rows == 0) return;
  if (shape.rows <= kFewRows) return HWY_DYNAMIC_DISPATCH(few_dots_entry)(shape, x, w, bias, y, begin, end);
  by_panels(shape, x, w, bias, y, begin, end, restore_rows_f32, row_dots_f32);
}

void quantised_dots_bf16(const RowDots& shape, const std::uint16_t* x, const QuantisedRows& w,
                         const std::uint16_t* bias, std::uint16_t* y, std::int64_t begin, std::int64_t end) {
  if (shape.rows == 0) return;
  if (shape.rows <= kFewRows && HWY_DYNAMIC_DISPATCH(has_few_dots_bf16)()) {
    return few_dots_avx512_bf16(shape, x, w, bias, y, begin, end);
  }
  by_panels(shape, x, w, bias, y, begin, end, restore_rows_bf16, row_dots_bf16);
}

}  // namespace skein
#endif  // HWY_ONCE
