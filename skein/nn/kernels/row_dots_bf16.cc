#include "skein/nn/kernels/row_dots_bf16.h"

#include <algorithm>

#include "skein/base/check.h"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own _mm512_undefined_ps()
#endif
#include <immintrin.h>
#define SKEIN_BF16_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

namespace skein {
namespace {

SKEIN_BF16_TARGET inline __m512bh load(const std::uint16_t* from) {
  return reinterpret_cast<__m512bh>(_mm512_loadu_si512(from));
}
SKEIN_BF16_TARGET inline __m512bh load_first(const std::uint16_t* from, std::int64_t count) {
  return reinterpret_cast<__m512bh>(_mm512_maskz_loadu_epi16(static_cast<__mmask32>((1ULL << count) - 1), from));
}

// The sums of the lanes of four vectors.
SKEIN_BF16_TARGET inline __m128 sum_lanes(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512 abcd = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// kRows x 4 outputs, one accumulator each, whichever way they are walked: so their bits do not depend on the tile.
// kStream: the four rows of w one after the other, as they lie in memory, which the prefetcher follows at full speed;
// otherwise side by side, which loads each x once.
template <int kRows, bool kStream>
SKEIN_BF16_TARGET void tile(const RowDots& shape, const std::uint16_t* x, const std::uint16_t* w,
                            const std::uint16_t* bias, std::uint16_t* y, std::int64_t columns) {
  const std::int64_t depth = shape.depth, whole = depth / 32 * 32;
  // Where fewer than four rows of w are left, the last one is read again and the repeats dropped.
  const std::uint16_t* rows_of_w[4];
#pragma GCC unroll 8
  for (int c = 0; c < 4; ++c) rows_of_w[c] = w + (c < columns ? c : columns - 1) * depth;
  __m512 sums[kRows][4];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < 4; ++c) sums[r][c] = _mm512_setzero_ps();
  }
  if constexpr (kStream) {
#pragma GCC unroll 8
    for (int c = 0; c < 4; ++c) {
      for (std::int64_t k = 0; k < whole; k += 32) {
        const __m512bh column = load(rows_of_w[c] + k);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          sums[r][c] = _mm512_dpbf16_ps(sums[r][c], load(x + r * shape.x_stride + k), column);
        }
      }
    }
  } else {
    for (std::int64_t k = 0; k < whole; k += 32) {
      __m512bh column[4];
#pragma GCC unroll 8
      for (int c = 0; c < 4; ++c) column[c] = load(rows_of_w[c] + k);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m512bh row = load(x + r * shape.x_stride + k);
#pragma GCC unroll 8
        for (int c = 0; c < 4; ++c) sums[r][c] = _mm512_dpbf16_ps(sums[r][c], row, column[c]);
      }
    }
  }
  if (whole < depth) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512bh row = load_first(x + r * shape.x_stride + whole, depth - whole);
#pragma GCC unroll 8
      for (int c = 0; c < 4; ++c) {
        sums[r][c] = _mm512_dpbf16_ps(sums[r][c], row, load_first(rows_of_w[c] + whole, depth - whole));
      }
    }
  }
  const auto kept = static_cast<__mmask8>((1U << columns) - 1);
  __m128 offset = _mm_setzero_ps();
  if (bias != nullptr) {
    offset = _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(_mm_maskz_loadu_epi16(kept, bias)), 16));
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const __m128 dots = sum_lanes(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
    const auto rounded = reinterpret_cast<__m128i>(_mm_cvtneps_pbh(_mm_add_ps(dots, offset)));
    _mm_mask_storeu_epi16(y + r * shape.y_stride, kept, rounded);
  }
}

using Tile = void (*)(const RowDots&, const std::uint16_t*, const std::uint16_t*, const std::uint16_t*, std::uint16_t*,
                      std::int64_t);
constexpr std::int64_t kTileRows = 5;
constexpr Tile kStreaming[] = {nullptr, tile<1, true>, tile<2, true>, tile<3, true>, tile<4, true>, tile<5, true>};
constexpr Tile kReusing[] = {nullptr, tile<1, false>, tile<2, false>, tile<3, false>, tile<4, false>, tile<5, false>};

}  // namespace

bool multiplies_bf16() {
  static const bool supported = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
                                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return supported;
}

void row_dots_avx512_bf16(const RowDots& shape, const std::uint16_t* x, const std::uint16_t* w,
                          const std::uint16_t* bias, std::uint16_t* y, std::int64_t begin, std::int64_t end) {
  const Tile* tiles = shape.rows <= kStreamedRows ? kStreaming : kReusing;
  for (std::int64_t first = begin; first < end; first += 4) {
    const std::int64_t columns = std::min<std::int64_t>(4, end - first);
    std::int64_t row = 0;
    while (row < shape.rows) {
      const std::int64_t rest = shape.rows - row;
      const std::int64_t count = rest > kTileRows && rest < 2 * kTileRows ? (rest + 1) / 2 : std::min(kTileRows, rest);
      tiles[count](shape, x + row * shape.x_stride, w + first * shape.depth, bias == nullptr ? nullptr : bias + first,
                   y + row * shape.y_stride + first, columns);
      row += count;
    }
  }
}

}  // namespace skein

#else

namespace skein {
bool multiplies_bf16() { return false; }
void row_dots_avx512_bf16(const RowDots&, const std::uint16_t*, const std::uint16_t*, const std::uint16_t*,
                          std::uint16_t*, std::int64_t, std::int64_t) {
  check_failed("multiplies_bf16()", __FILE__, __LINE__);
}
}  // namespace skein

#endif
