#include "skein/nn/kernels/quantised_rows.h"

#include <algorithm>
#include <cstring>

#include "skein/nn/kernels/quantised_rows_vnni.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "skein/nn/kernels/quantised_rows.cc"
#include <hwy/foreach_target.h>  // compiles what follows once per target

#include <hwy/highway.h>

#include "skein/nn/kernels/element-inl.h"

HWY_BEFORE_NAMESPACE();
namespace skein::HWY_NAMESPACE {

constexpr std::int64_t kGroup = QuantisedRows::kGroup;

#if HWY_TARGET == HWY_SCALAR

// The integers of a tile's 32 columns (part 0, of 4 bits also 1) row by row: (16, 32).
void numbers_of(const QuantisedRows& w, const std::uint8_t* tile, int part, std::int8_t* numbers) {
  for (int row = 0; row < kGroup; ++row) {
    for (int column = 0; column < 32; ++column) {
      const std::uint8_t code = tile[64 * (column / 4) + 4 * row + column % 4];
      numbers[32 * row + column] =
          w.bits == 8 ? static_cast<std::int8_t>(code ^ 0x80) : kLevels[code >> (4 * part) & 15];
    }
  }
}

#else

using Bytes = hn::Repartition<std::uint8_t, Floats>;
using ByteVec = hn::Vec<Bytes>;

// 128 + the levels' integers, in every 16 bytes.
HWY_INLINE ByteVec shifted_levels() {
  alignas(16) std::uint8_t levels[16];
  for (int i = 0; i < 16; ++i) levels[i] = static_cast<std::uint8_t>(kLevels[i] + 128);
  return hn::LoadDup128(Bytes(), levels);
}

// 128 + the integers of codes, as they lie.
template <int kBits>
HWY_INLINE ByteVec shifted_numbers(const std::uint8_t* codes, int part, ByteVec levels) {
  const ByteVec bytes = hn::LoadU(Bytes(), codes);
  if (kBits == 8) return bytes;
  const hn::Repartition<std::uint16_t, Floats> words;
  const ByteVec halves = part == 0 ? bytes : hn::BitCast(Bytes(), hn::ShiftRight<4>(hn::BitCast(words, bytes)));
  return hn::TableLookupBytes(levels, hn::And(halves, hn::Set(Bytes(), 15)));
}

// The integers of a tile's 32 columns (part 0, of 4 bits also 1) row by row: (16, 32).
HWY_INLINE void numbers_of(const QuantisedRows& w, const std::uint8_t* tile, int part, std::int8_t* numbers) {
  std::uint8_t bytes[QuantisedRows::kTileBytes];
  const ByteVec levels = shifted_levels(), sign = hn::Set(Bytes(), 0x80);
  for (std::size_t i = 0; i < sizeof(bytes); i += hn::Lanes(Bytes())) {
    const ByteVec shifted =
        w.bits == 8 ? shifted_numbers<8>(tile + i, part, levels) : shifted_numbers<4>(tile + i, part, levels);
    hn::StoreU(hn::Xor(shifted, sign), Bytes(), bytes + i);
  }
  for (int row = 0; row < kGroup; ++row) {
    for (int j = 0; j < 8; ++j) std::memcpy(numbers + 32 * row + 4 * j, bytes + 64 * j + 4 * row, 4);
  }
}

#endif

template <typename T>
void restore(const QuantisedRows& w, std::int64_t begin, std::int64_t end, T* out) {
  const hn::Rebind<std::int8_t, Floats> narrow;
  const hn::RebindToSigned<Floats> wide;
  const hn::Rebind<hwy::float16_t, Floats> halves;
  std::int8_t numbers[kGroup * 32];
  float scales[kGroup];
  T rest[32];
  const int parts = w.bits == 8 ? 1 : 2;
  for (std::int64_t group = begin / kGroup; group * kGroup < end; ++group) {
    const std::int64_t first = std::max(begin, group * kGroup), last = std::min(end, (group + 1) * kGroup);
    for (std::int64_t column = 0; column < w.depth; column += 32) {
      const std::int64_t block = column / 32 / parts, count = std::min<std::int64_t>(32, w.depth - column);
      numbers_of(w, w.tile(group, block), static_cast<int>(column / 32 % parts), numbers);
      const auto* stored = reinterpret_cast<const hwy::float16_t*>(w.tile_scales(group, block));
      for (std::int64_t i = 0; i < kGroup; i += lanes()) {
        store(hn::PromoteTo(Floats(), hn::LoadU(halves, stored + i)), scales + i);
      }
      for (std::int64_t row = first; row < last; ++row) {
        const Vec scale = hn::Set(Floats(), scales[row % kGroup]);
        T* to = out + (row - begin) * w.depth + column;
        T* target = count == 32 ? to : rest;
        for (std::int64_t i = 0; i < 32; i += lanes()) {
          const auto integers = hn::PromoteTo(wide, hn::LoadU(narrow, numbers + 32 * (row % kGroup) + i));
          store(hn::Mul(hn::ConvertTo(Floats(), integers), scale), target + i);
        }
        if (count < 32) std::copy_n(rest, count, to);
      }
    }
  }
}

void restore_f32(const QuantisedRows& w, std::int64_t begin, std::int64_t end, float* out) {
  restore(w, begin, end, out);
}
void restore_bf16(const QuantisedRows& w, std::int64_t begin, std::int64_t end, std::uint16_t* out) {
  restore(w, begin, end, out);
}

// 32 numbers of x -> integers; their scale.
HWY_INLINE float quantise(const std::uint16_t* x, std::int8_t* numbers) {
  const hn::Rebind<std::int8_t, Floats> narrow;
  Vec largest = hn::Zero(Floats()), poison = largest;  // NaN where x is not finite
  for (std::int64_t i = 0; i < 32; i += lanes()) {
    const Vec values = load(x + i);
    largest = hn::Max(largest, hn::Abs(values));
    poison = hn::MulAdd(values, hn::Zero(Floats()), poison);
  }
  const float magnitude = hn::GetLane(hn::MaxOfLanes(Floats(), largest));
  const Vec inverse = hn::Set(Floats(), magnitude > 0 ? 127 / magnitude : 0);
  for (std::int64_t i = 0; i < 32; i += lanes()) {
    hn::StoreU(hn::DemoteTo(narrow, hn::NearestInt(hn::Mul(load(x + i), inverse))), narrow, numbers + i);
  }
  return magnitude / 127 + hn::GetLane(hn::SumOfLanes(Floats(), poison));
}

void quantise_rows(const std::uint16_t* x, std::int64_t stride, std::int64_t depth, EightBitInputs& out) {
  for (std::int64_t row = 0; row < out.rows; ++row) {
    for (std::int64_t block = 0; block < out.blocks; ++block) {
      const std::int64_t index = row * out.blocks + block, count = std::min<std::int64_t>(32, depth - 32 * block);
      if (count <= 0) continue;
      std::uint16_t rest[32] = {};
      const std::uint16_t* from = x + row * stride + 32 * block;
      if (count < 32) from = std::copy_n(from, count, rest) - count;
      std::int8_t* numbers = out.numbers.data() + 32 * index;
      out.scales[index] = quantise(from, numbers);
      std::int32_t sum = 0;
      for (int i = 0; i < 32; ++i) sum += numbers[i];
      out.offsets[index] = -128 * sum;
    }
  }
}

#if HWY_TARGET == HWY_SCALAR

// The definition, column by column: what the others are tested against.
void dots(const EightBitInputs& x, const QuantisedRows& w, const std::uint16_t* bias, std::uint16_t* y,
          std::int64_t y_stride, std::int64_t outputs, std::int64_t begin, std::int64_t end) {
  const int parts = w.bits == 8 ? 1 : 2;
  std::int8_t numbers[kGroup * 32];
  for (std::int64_t group = begin; group < end; ++group) {
    for (std::int64_t row = 0; row < x.rows; ++row) {
      float sums[kGroup] = {};
      for (std::int64_t b = 0; b < w.blocks() * parts; ++b) {
        const std::int64_t index = row * x.blocks + b;
        numbers_of(w, w.tile(group, b / parts), static_cast<int>(b % parts), numbers);
        for (int column = 0; column < kGroup; ++column) {
          std::int32_t dot = 0;
          for (int i = 0; i < 32; ++i) dot += numbers[32 * column + i] * x.numbers[32 * index + i];
          const float factor = f16_to_f32(w.tile_scales(group, b / parts)[column]) * x.scales[index];
          sums[column] = __builtin_fmaf(static_cast<float>(dot), factor, sums[column]);
        }
      }
      for (std::int64_t m = group * kGroup; m < std::min(outputs, (group + 1) * kGroup); ++m) {
        narrow_to(sums[m % kGroup] + (bias == nullptr ? 0 : widen(bias[m])), y + row * y_stride + m);
      }
    }
  }
}

#else

using Shorts = hn::Repartition<std::int16_t, Floats>;
using Integers = hn::RebindToSigned<Floats>;
using IntegerVec = hn::Vec<Integers>;

// dot + the products of four columns: bytes as pairs of 16-bit numbers, even and odd, which multiply without overflow.
HWY_INLINE IntegerVec add_products(IntegerVec dot, ByteVec shifted, const std::int8_t* x) {
  std::int32_t four = 0;
  std::memcpy(&four, x, 4);
  const auto x_pairs = hn::BitCast(Shorts(), hn::Set(Integers(), four));
  const auto w_pairs = hn::BitCast(Shorts(), shifted);
  const auto low_bytes = hn::Set(Shorts(), 0xff);
  const hn::RebindToUnsigned<Shorts> words;
  IntegerVec second = hn::Zero(Integers());
  dot = hn::ReorderWidenMulAccumulate(Integers(), hn::And(w_pairs, low_bytes),
                                      hn::ShiftRight<8>(hn::ShiftLeft<8>(x_pairs)), dot, second);
  const auto odd = hn::BitCast(Shorts(), hn::ShiftRight<8>(hn::BitCast(words, w_pairs)));
  dot = hn::ReorderWidenMulAccumulate(Integers(), odd, hn::ShiftRight<8>(x_pairs), dot, second);
  return hn::RearrangeToOddPlusEven(dot, second);
}

template <int kBits, int kRows>
void tile(const EightBitInputs& x, std::int64_t row, const QuantisedRows& w, std::int64_t group, std::int64_t lane,
          ByteVec levels, Vec (&sums)[kRows]) {
  constexpr int kParts = kBits == 8 ? 1 : 2;
  const hn::Rebind<hwy::float16_t, Floats> halves;
  for (int r = 0; r < kRows; ++r) sums[r] = hn::Zero(Floats());
  for (std::int64_t b = 0; b < w.blocks(); ++b) {
    const auto* scales = reinterpret_cast<const hwy::float16_t*>(w.tile_scales(group, b) + lane);
    const Vec scale = hn::PromoteTo(Floats(), hn::LoadU(halves, scales));
    for (int part = 0; part < kParts; ++part) {
      const std::int64_t first = row * x.blocks + b * kParts + part;
      IntegerVec dots[kRows];
      for (int r = 0; r < kRows; ++r) dots[r] = hn::Set(Integers(), x.offsets[first + r * x.blocks]);
      for (int j = 0; j < 8; ++j) {
        const ByteVec shifted = shifted_numbers<kBits>(w.tile(group, b) + 64 * j + 4 * lane, part, levels);
        for (int r = 0; r < kRows; ++r) {
          dots[r] = add_products(dots[r], shifted, x.numbers.data() + 32 * (first + r * x.blocks) + 4 * j);
        }
      }
      for (int r = 0; r < kRows; ++r) {
        const Vec factor = hn::Mul(scale, hn::Set(Floats(), x.scales[first + r * x.blocks]));
        sums[r] = hn::MulAdd(hn::ConvertTo(Floats(), dots[r]), factor, sums[r]);
      }
    }
  }
}

template <int kBits, int kRows>
void rows_of(const EightBitInputs& x, std::int64_t row, const QuantisedRows& w, std::int64_t group, ByteVec levels,
             const std::uint16_t* bias, std::uint16_t* y, std::int64_t y_stride, std::int64_t outputs) {
  for (std::int64_t lane = 0; lane < kGroup; lane += lanes()) {
    Vec sums[kRows];
    tile<kBits, kRows>(x, row, w, group, lane, levels, sums);
    for (int r = 0; r < kRows; ++r) {
      float values[kGroup];
      store(sums[r], values);
      for (std::int64_t i = 0; i < lanes(); ++i) {
        const std::int64_t m = group * kGroup + lane + i;
        if (m >= outputs) break;
        narrow_to(values[i] + (bias == nullptr ? 0 : widen(bias[m])), y + (row + r) * y_stride + m);
      }
    }
  }
}

template <int kBits>
void dots_of(const EightBitInputs& x, const QuantisedRows& w, const std::uint16_t* bias, std::uint16_t* y,
             std::int64_t y_stride, std::int64_t outputs, std::int64_t begin, std::int64_t end) {
  const ByteVec levels = shifted_levels();
  for (std::int64_t group = begin; group < end; ++group) {
    std::int64_t row = 0;
    for (; row + 4 <= x.rows; row += 4) rows_of<kBits, 4>(x, row, w, group, levels, bias, y, y_stride, outputs);
    for (; row < x.rows; ++row) rows_of<kBits, 1>(x, row, w, group, levels, bias, y, y_stride, outputs);
  }
}

void dots(const EightBitInputs& x, const QuantisedRows& w, const std::uint16_t* bias, std::uint16_t* y,
          std::int64_t y_stride, std::int64_t outputs, std::int64_t begin, std::int64_t end) {
  if (HWY_TARGET == HWY_AVX3 && multiplies_bytes()) {
    return integer_dots_avx512_vnni(x, w, bias, y, y_stride, outputs, begin, end);
  }
  (w.bits == 8 ? dots_of<8> : dots_of<4>)(x, w, bias, y, y_stride, outputs, begin, end);
}

#endif

}  // namespace skein::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace skein {

HWY_EXPORT(restore_f32);
HWY_EXPORT(restore_bf16);
HWY_EXPORT(quantise_rows);
HWY_EXPORT(dots);

void restore_rows_f32(const QuantisedRows& w, std::int64_t begin, std::int64_t end, float* out) {
  HWY_DYNAMIC_DISPATCH(restore_f32)(w, begin, end, out);
}
void restore_rows_bf16(const QuantisedRows& w, std::int64_t begin, std::int64_t end, std::uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(restore_bf16)(w, begin, end, out);
}

EightBitInputs eight_bit_inputs(const std::uint16_t* x, std::int64_t rows, std::int64_t stride,
                                const QuantisedRows& w) {
  EightBitInputs out;
  out.rows = rows;
  out.blocks = w.blocks() * QuantisedRows::block_size(w.bits) / 32;
  out.numbers.resize(static_cast<std::size_t>(32 * rows * out.blocks));
  out.scales.resize(static_cast<std::size_t>(rows * out.blocks));
  out.offsets.resize(static_cast<std::size_t>(rows * out.blocks));
  HWY_DYNAMIC_DISPATCH(quantise_rows)(x, stride, w.depth, out);
  return out;
}

void integer_dots(const EightBitInputs& x, const QuantisedRows& w, const std::uint16_t* bias, std::uint16_t* y,
                  std::int64_t y_stride, std::int64_t outputs, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(dots)(x, w, bias, y, y_stride, outputs, begin, end);
}

}  // namespace skein
#endif  // HWY_ONCE
