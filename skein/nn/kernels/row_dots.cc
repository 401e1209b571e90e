#include "skein/nn/kernels/row_dots.h"

#include <algorithm>

#include "skein/nn/kernels/row_dots_bf16.h"

// Accumulators live in registers only if the loops over them disappear; -O2 alone keeps such loops.
#undef SKEIN_UNROLL
#define SKEIN_UNROLL _Pragma("GCC unroll 8")

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "skein/nn/kernels/row_dots.cc"
#include <hwy/foreach_target.h>  // compiles what follows once per target

#include <hwy/highway.h>

#include "skein/nn/kernels/element-inl.h"

HWY_BEFORE_NAMESPACE();
namespace skein::HWY_NAMESPACE {

// kRows x kColumns outputs, one accumulator each, whichever way they are walked: so their bits do not depend on the
// tile. kStream: rows of w one after the other, as they lie in memory, which the prefetcher follows at full speed;
// otherwise side by side, which loads each x once.
template <int kRows, int kColumns, bool kStream, typename T>
void tile(const RowDots& shape, const T* HWY_RESTRICT x, const T* HWY_RESTRICT w, const T* bias, T* HWY_RESTRICT y) {
  const Floats d;
  const std::int64_t depth = shape.depth, whole = depth / lanes() * lanes();
  Vec sums[kRows][kColumns];
  SKEIN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    SKEIN_UNROLL
    for (int c = 0; c < kColumns; ++c) sums[r][c] = hn::Zero(d);
  }
  if constexpr (kStream) {
    SKEIN_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      for (std::int64_t k = 0; k < whole; k += lanes()) {
        const Vec column = load(w + c * depth + k);
        SKEIN_UNROLL
        for (int r = 0; r < kRows; ++r) {
          sums[r][c] = hn::MulAdd(load(x + r * shape.x_stride + k), column, sums[r][c]);
        }
      }
    }
  } else {
    for (std::int64_t k = 0; k < whole; k += lanes()) {
      Vec rows[kRows];
      SKEIN_UNROLL
      for (int r = 0; r < kRows; ++r) rows[r] = load(x + r * shape.x_stride + k);
      SKEIN_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        const Vec column = load(w + c * depth + k);
        SKEIN_UNROLL
        for (int r = 0; r < kRows; ++r) sums[r][c] = hn::MulAdd(rows[r], column, sums[r][c]);
      }
    }
  }
  SKEIN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    SKEIN_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      float sum = hn::GetLane(hn::SumOfLanes(d, sums[r][c]));
      for (std::int64_t k = whole; k < depth; ++k) {
        sum += widen(x[r * shape.x_stride + k]) * widen(w[c * depth + k]);
      }
      narrow_to(bias == nullptr ? sum : sum + widen(bias[c]), y + r * shape.y_stride + c);
    }
  }
}

// Rows of w that stay in the first cache while all rows of x pass, and rows of x at once: as registers allow.
constexpr int kColumns = 4;
constexpr int kTileRows = HWY_TARGET <= HWY_AVX3 ? 6 : 3;

template <int kColumns, bool kStream, typename T>
void rows_of(const RowDots& shape, const T* x, const T* w, const T* bias, T* y) {
  std::int64_t row = 0;
  const auto next = [&](auto run, std::int64_t count) {
    run(shape, x + row * shape.x_stride, w, bias, y + row * shape.y_stride);
    row += count;
  };
  while (row + kTileRows <= shape.rows) next(tile<kTileRows, kColumns, kStream, T>, kTileRows);
  if constexpr (kTileRows > 3) {
    while (row + 3 <= shape.rows) next(tile<3, kColumns, kStream, T>, 3);
  }
  if (row + 2 <= shape.rows) next(tile<2, kColumns, kStream, T>, 2);
  if (row < shape.rows) next(tile<1, kColumns, kStream, T>, 1);
}

template <bool kStream, typename T>
void columns_of(const RowDots& shape, const T* x, const T* w, const T* bias, T* y, std::int64_t begin,
                std::int64_t end) {
  std::int64_t column = begin;
  const auto bias_at = [&] { return bias == nullptr ? nullptr : bias + column; };
  for (; column + kColumns <= end; column += kColumns) {
    rows_of<kColumns, kStream>(shape, x, w + column * shape.depth, bias_at(), y + column);
  }
  for (; column < end; ++column) rows_of<1, kStream>(shape, x, w + column * shape.depth, bias_at(), y + column);
}

template <typename T>
void all_of(const RowDots& shape, const T* x, const T* w, const T* bias, T* y, std::int64_t begin, std::int64_t end) {
  const auto run = shape.rows <= kStreamedRows ? columns_of<true, T> : columns_of<false, T>;
  run(shape, x, w, bias, y, begin, end);
}

void dots_f32(const RowDots& shape, const float* x, const float* w, const float* bias, float* y, std::int64_t begin,
              std::int64_t end) {
  all_of(shape, x, w, bias, y, begin, end);
}
void dots_bf16(const RowDots& shape, const std::uint16_t* x, const std::uint16_t* w, const std::uint16_t* bias,
               std::uint16_t* y, std::int64_t begin, std::int64_t end) {
  if (HWY_TARGET == HWY_AVX3 && multiplies_bf16()) return row_dots_avx512_bf16(shape, x, w, bias, y, begin, end);
  all_of(shape, x, w, bias, y, begin, end);
}

}  // namespace skein::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace skein {

HWY_EXPORT(dots_f32);
HWY_EXPORT(dots_bf16);

namespace {

// Rows of x in chunks that stay in a core's second cache while all of w passes.
template <typename T, typename Run>
void in_chunks(const RowDots& shape, const T* x, T* y, const Run& run) {
  constexpr std::int64_t kChunkBytes = 384 << 10, kTileMultiple = 30;  // whole tiles of 5 and of 6 rows
  const std::int64_t row_bytes = shape.depth * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t tiles =
      std::max<std::int64_t>(1, kChunkBytes / std::max<std::int64_t>(1, row_bytes * kTileMultiple));
  for (std::int64_t row = 0; row < shape.rows; row += tiles * kTileMultiple) {
    RowDots chunk = shape;
    chunk.rows = std::min(tiles * kTileMultiple, shape.rows - row);
    run(chunk, x + row * shape.x_stride, y + row * shape.y_stride);
  }
}

}  // namespace

void row_dots_f32(const RowDots& shape, const float* x, const float* w, const float* bias, float* y, std::int64_t begin,
                  std::int64_t end) {
  in_chunks(shape, x, y, [&](const RowDots& chunk, const float* chunk_x, float* chunk_y) {
    HWY_DYNAMIC_DISPATCH(dots_f32)(chunk, chunk_x, w, bias, chunk_y, begin, end);
  });
}

void row_dots_bf16(const RowDots& shape, const std::uint16_t* x, const std::uint16_t* w, const std::uint16_t* bias,
                   std::uint16_t* y, std::int64_t begin, std::int64_t end) {
  in_chunks(shape, x, y, [&](const RowDots& chunk, const std::uint16_t* chunk_x, std::uint16_t* chunk_y) {
    HWY_DYNAMIC_DISPATCH(dots_bf16)(chunk, chunk_x, w, bias, chunk_y, begin, end);
  });
}

}  // namespace skein
#endif  // HWY_ONCE
