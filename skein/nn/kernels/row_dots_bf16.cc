#include "skein/nn/kernels/row_dots_bf16.h"

#include <algorithm>

#include "skein/base/check.h"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own _mm512_undefined_ps()
#endif
#include "skein/nn/kernels/row_dots_avx512.h"

namespace skein {
namespace {

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
        const __m512bh column = load_bf16(rows_of_w[c] + k);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          sums[r][c] = _mm512_dpbf16_ps(sums[r][c], load_bf16(x + r * shape.x_stride + k), column);
        }
      }
    }
  } else {
    for (std::int64_t k = 0; k < whole; k += 32) {
      __m512bh column[4];
#pragma GCC unroll 8
      for (int c = 0; c < 4; ++c) column[c] = load_bf16(rows_of_w[c] + k);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m512bh row = load_bf16(x + r * shape.x_stride + k);
#pragma GCC unroll 8
        for (int c = 0; c < 4; ++c) sums[r][c] = _mm512_dpbf16_ps(sums[r][c], row, column[c]);
      }
    }
  }
  if (whole < depth) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512bh row = load_first_bf16(x + r * shape.x_stride + whole, depth - whole);
#pragma GCC unroll 8
      for (int c = 0; c < 4; ++c) {
        sums[r][c] = _mm512_dpbf16_ps(sums[r][c], row, load_first_bf16(rows_of_w[c] + whole, depth - whole));
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) store_outputs(sums[r], bias, columns, y + r * shape.y_stride);
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
