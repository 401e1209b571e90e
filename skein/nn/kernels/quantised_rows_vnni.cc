#include "skein/nn/kernels/quantised_rows_vnni.h"

#include <algorithm>
#include <cstring>

#include "skein/base/check.h"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own _mm512_undefined_ps()
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#define SKEIN_VNNI_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))

namespace skein {
namespace {

SKEIN_VNNI_TARGET inline __m512i four_bytes(const std::int8_t* from) {
  std::int32_t bytes = 0;
  std::memcpy(&bytes, from, 4);
  return _mm512_set1_epi32(bytes);
}

// 128 + the integers of 16 rows and four columns. kPart: of 4 bits, the block's first 32 columns or its last.
template <int kBits, int kPart>
SKEIN_VNNI_TARGET inline __m512i shifted_numbers(const std::uint8_t* codes, __m512i levels) {
  const __m512i bytes = _mm512_loadu_si512(codes);
  if constexpr (kBits == 8) return bytes;
  const __m512i halves = kPart == 0 ? bytes : _mm512_srli_epi16(bytes, 4);
  return _mm512_shuffle_epi8(levels, _mm512_and_si512(halves, _mm512_set1_epi8(15)));
}

// sums += 32 columns from column 32 x_block on, of rows of x from `row` on.
template <int kBits, int kPart, int kRows>
SKEIN_VNNI_TARGET inline void add_block(const EightBitInputs& x, std::int64_t row, std::int64_t x_block,
                                        const std::uint8_t* tile, __m512i levels, __m512 scale, __m512 (&sums)[kRows]) {
  const std::int64_t first = row * x.blocks + x_block;
  const std::int8_t* numbers = x.numbers.data() + 32 * first;
  __m512i dots[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) dots[r] = _mm512_set1_epi32(x.offsets[first + r * x.blocks]);
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
    const __m512i w = shifted_numbers<kBits, kPart>(tile + 64 * j, levels);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      dots[r] = _mm512_dpbusd_epi32(dots[r], w, four_bytes(numbers + 32 * r * x.blocks + 4 * j));
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(x.scales[first + r * x.blocks]));
    sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), factor, sums[r]);
  }
}

SKEIN_VNNI_TARGET inline __m512 widened(__m256i bf16) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16));
}

// To nearest even; NaN stays NaN.
SKEIN_VNNI_TARGET inline __m256i narrowed(__m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 is_nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  const __m512i chosen = _mm512_mask_or_epi32(rounded, is_nan, bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(chosen, 16));
}

// One group's outputs of kRows rows of x.
template <int kBits, int kRows>
SKEIN_VNNI_TARGET void tile(const EightBitInputs& x, std::int64_t row, const QuantisedRows& w, std::int64_t group,
                            __m512i levels, __m512 bias, std::uint16_t* y, std::int64_t y_stride, __mmask16 kept) {
  const std::int64_t blocks = w.blocks();
  const std::uint8_t* codes = w.tile(group, 0);
  const std::uint16_t* scales = w.tile_scales(group, 0);
  __m512 sums[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
  for (std::int64_t b = 0; b < blocks; ++b, codes += QuantisedRows::kTileBytes, scales += QuantisedRows::kGroup) {
    const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
    if constexpr (kBits == 8) {
      add_block<8, 0>(x, row, b, codes, levels, scale, sums);
    } else {
      add_block<4, 0>(x, row, 2 * b, codes, levels, scale, sums);
      add_block<4, 1>(x, row, 2 * b + 1, codes, levels, scale, sums);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    _mm256_mask_storeu_epi16(y + (row + r) * y_stride, kept, narrowed(_mm512_add_ps(sums[r], bias)));
  }
}

// Rows of x at once: as many as registers allow.
constexpr std::int64_t kTileRows = 12;
using Tile = void (*)(const EightBitInputs&, std::int64_t, const QuantisedRows&, std::int64_t, __m512i, __m512,
                      std::uint16_t*, std::int64_t, __mmask16);
template <int kBits>
constexpr Tile kTiles[kTileRows + 1] = {
    nullptr,        tile<kBits, 1>, tile<kBits, 2>, tile<kBits, 3>,  tile<kBits, 4>,  tile<kBits, 5>, tile<kBits, 6>,
    tile<kBits, 7>, tile<kBits, 8>, tile<kBits, 9>, tile<kBits, 10>, tile<kBits, 11>, tile<kBits, 12>};

}  // namespace

bool multiplies_bytes() {
  static const bool supported = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
                                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return supported;
}

SKEIN_VNNI_TARGET void integer_dots_avx512_vnni(const EightBitInputs& x, const QuantisedRows& w,
                                                const std::uint16_t* bias, std::uint16_t* y, std::int64_t y_stride,
                                                std::int64_t outputs, std::int64_t begin, std::int64_t end) {
  alignas(16) std::uint8_t shifted_levels[16];
  for (int i = 0; i < 16; ++i) shifted_levels[i] = static_cast<std::uint8_t>(kLevels[i] + 128);
  const __m512i levels = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(shifted_levels)));
  const Tile* tiles = w.bits == 8 ? kTiles<8> : kTiles<4>;
  for (std::int64_t group = begin; group < end; ++group) {
    const std::int64_t first = group * QuantisedRows::kGroup,
                       columns = std::min(QuantisedRows::kGroup, outputs - first);
    const auto kept = static_cast<__mmask16>((1U << columns) - 1);
    const __m512 offset = bias == nullptr ? _mm512_setzero_ps() : widened(_mm256_maskz_loadu_epi16(kept, bias + first));
    for (std::int64_t row = 0; row < x.rows;) {
      // Rows in tiles of nearly the same height.
      const std::int64_t rest = x.rows - row,
                         count = (rest + (rest + kTileRows - 1) / kTileRows - 1) / ((rest + kTileRows - 1) / kTileRows);
      tiles[count](x, row, w, group, levels, offset, y + first, y_stride, kept);
      row += count;
    }
  }
}

}  // namespace skein

#else

namespace skein {
bool multiplies_bytes() { return false; }
void integer_dots_avx512_vnni(const EightBitInputs&, const QuantisedRows&, const std::uint16_t*, std::uint16_t*,
                              std::int64_t, std::int64_t, std::int64_t, std::int64_t) {
  check_failed("multiplies_bytes()", __FILE__, __LINE__);
}
}  // namespace skein

#endif
