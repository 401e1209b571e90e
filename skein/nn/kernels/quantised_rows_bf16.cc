#include "skein/nn/kernels/quantised_rows_bf16.h"

#include <algorithm>

#include "skein/base/check.h"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own _mm512_undefined_ps()
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "skein/nn/kernels/row_dots_avx512.h"

namespace skein {
namespace {

SKEIN_BF16_TARGET inline __m512i rounded(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// One block's numbers in bf16, 32 at a time.
template <int kBits>
struct Block;

template <>
struct Block<8> {
  SKEIN_BF16_TARGET Block(const std::uint8_t* block_codes, float block_scale)
      : codes(block_codes), scale(_mm512_set1_ps(block_scale)) {}
  template <int kPart>  // 0
  SKEIN_BF16_TARGET __m512i numbers() const {
    const auto* from = reinterpret_cast<const __m128i*>(codes);
    return rounded(widened(_mm_loadu_si128(from)), widened(_mm_loadu_si128(from + 1)));
  }
  SKEIN_BF16_TARGET __m512 widened(__m128i bytes) const {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), scale);
  }
  const std::uint8_t* codes;
  __m512 scale;
};

template <>
struct Block<4> {
  SKEIN_BF16_TARGET Block(const std::uint8_t* codes, float scale)
      : bytes(_mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)))) {
    const __m512 levels = _mm512_mul_ps(_mm512_loadu_ps(kNormalFloatLevels), _mm512_set1_ps(scale));
    table = rounded(levels, levels);  // twice, as the instruction below looks at five bits
  }
  template <int kPart>  // 0, 1
  SKEIN_BF16_TARGET __m512i numbers() const {
    return _mm512_permutexvar_epi16(kPart == 0 ? bytes : _mm512_srli_epi16(bytes, 4), table);
  }
  __m512i bytes, table;
};

constexpr std::int64_t kScales = 64;  // of a row, widened at a time

SKEIN_BF16_TARGET inline void widen_scales(const std::uint16_t* from, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; i += 16) {
    const auto mask = static_cast<__mmask16>(count - i >= 16 ? 0xffff : (1U << (count - i)) - 1);
    _mm512_storeu_ps(to + i, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, from + i)));
  }
}

template <int kBits>
SKEIN_BF16_TARGET void restore(const QuantisedRows& w, std::int64_t begin, std::int64_t end, std::uint16_t* out) {
  constexpr std::int64_t kBlock = QuantisedRows::block_size(kBits);
  const std::int64_t blocks = w.blocks();
  float scales[kScales];
  for (std::int64_t row = begin; row < end; ++row, out += w.depth) {
    for (std::int64_t first = 0; first < blocks; first += kScales) {
      const std::int64_t last = std::min(first + kScales, blocks);
      widen_scales(w.scales + row * blocks + first, last - first, scales);
      for (std::int64_t b = first; b < last; ++b) {
        const Block<kBits> block(w.codes + (row * blocks + b) * QuantisedRows::kBlockBytes, scales[b - first]);
        _mm512_storeu_si512(out + b * kBlock, block.template numbers<0>());
        if constexpr (kBits == 4) _mm512_storeu_si512(out + b * kBlock + 32, block.template numbers<1>());
      }
    }
  }
}

// sums += x's `count` (at most a block's) columns times the block, each row with its own accumulator.
template <int kBits, int kRows>
SKEIN_BF16_TARGET inline void multiply(const Block<kBits>& block, const std::uint16_t* x, std::int64_t x_stride,
                                       std::int64_t count, __m512* const (&sums)[kRows]) {
  const auto low = reinterpret_cast<__m512bh>(block.template numbers<0>());
  const bool is_whole = count >= QuantisedRows::block_size(kBits);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const std::uint16_t* row = x + r * x_stride;
    const __m512bh numbers = is_whole ? load_bf16(row) : load_first_bf16(row, std::min<std::int64_t>(count, 32));
    *sums[r] = _mm512_dpbf16_ps(*sums[r], numbers, low);
  }
  if constexpr (kBits == 4) {
    if (count <= 32) return;
    const auto high = reinterpret_cast<__m512bh>(block.template numbers<1>());
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const std::uint16_t* row = x + r * x_stride + 32;
      const __m512bh numbers = is_whole ? load_bf16(row) : load_first_bf16(row, count - 32);
      *sums[r] = _mm512_dpbf16_ps(*sums[r], numbers, high);
    }
  }
}

// kRows x 4 outputs with an accumulator each, in the order of row_dots_avx512_bf16.
template <int kBits, int kRows>
SKEIN_BF16_TARGET void tile(const RowDots& shape, const std::uint16_t* x, const QuantisedRows& w, std::int64_t column,
                            const std::uint16_t* bias, std::uint16_t* y, std::int64_t columns) {
  constexpr std::int64_t kBlock = QuantisedRows::block_size(kBits);
  // Rows of w one after the other, as they lie in memory, which the prefetcher follows at full speed; of 4 bits, whose
  // numbers are made faster than one sum takes them, side by side.
  constexpr int kSide = kBits == 8 ? 1 : 4;
  const std::int64_t blocks = w.blocks(), depth = shape.depth;
  // Where fewer than four rows of w are left, the last one is read again and the repeats dropped.
  std::int64_t first_blocks[4];
#pragma GCC unroll 8
  for (int c = 0; c < 4; ++c) first_blocks[c] = (column + (c < columns ? c : columns - 1)) * blocks;
  __m512 sums[kRows][4];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < 4; ++c) sums[r][c] = _mm512_setzero_ps();
  }
  float scales[4][kScales];
  for (std::int64_t first = 0; first < blocks; first += kScales) {
    const std::int64_t last = std::min(first + kScales, blocks);
    for (int c = 0; c < 4; ++c) widen_scales(w.scales + first_blocks[c] + first, last - first, scales[c]);
#pragma GCC unroll 8
    for (int side = 0; side < 4; side += kSide) {
      for (std::int64_t b = first; b < last; ++b) {
#pragma GCC unroll 8
        for (int c = side; c < side + kSide; ++c) {
          const Block<kBits> block(w.codes + (first_blocks[c] + b) * QuantisedRows::kBlockBytes, scales[c][b - first]);
          __m512* of_rows[kRows];
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) of_rows[r] = &sums[r][c];
          multiply(block, x + b * kBlock, shape.x_stride, depth - b * kBlock, of_rows);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    store_outputs(sums[r], bias == nullptr ? nullptr : bias + column, columns, y + r * shape.y_stride + column);
  }
}

template <int kBits>
SKEIN_BF16_TARGET void few_dots(const RowDots& shape, const std::uint16_t* x, const QuantisedRows& w,
                                const std::uint16_t* bias, std::uint16_t* y, std::int64_t begin, std::int64_t end) {
  constexpr decltype(&tile<kBits, 1>) kTiles[kFewRows] = {tile<kBits, 1>, tile<kBits, 2>, tile<kBits, 3>,
                                                          tile<kBits, 4>};
  for (std::int64_t column = begin; column < end; column += 4) {
    kTiles[shape.rows - 1](shape, x, w, column, bias, y, std::min<std::int64_t>(4, end - column));
  }
}

}  // namespace

void restore_rows_avx512_bf16(const QuantisedRows& w, std::int64_t begin, std::int64_t end, std::uint16_t* out) {
  (w.bits == 8 ? restore<8> : restore<4>)(w, begin, end, out);
}

void few_dots_avx512_bf16(const RowDots& shape, const std::uint16_t* x, const QuantisedRows& w,
                          const std::uint16_t* bias, std::uint16_t* y, std::int64_t begin, std::int64_t end) {
  (w.bits == 8 ? few_dots<8> : few_dots<4>)(shape, x, w, bias, y, begin, end);
}

}  // namespace skein

#else

namespace skein {
void restore_rows_avx512_bf16(const QuantisedRows&, std::int64_t, std::int64_t, std::uint16_t*) {
  check_failed("multiplies_bf16()", __FILE__, __LINE__);
}
void few_dots_avx512_bf16(const RowDots&, const std::uint16_t*, const QuantisedRows&, const std::uint16_t*,
                          std::uint16_t*, std::int64_t, std::int64_t) {
  check_failed("multiplies_bf16()", __FILE__, __LINE__);
}
}  // namespace skein

#endif
