// What the AVX512-BF16 kernels share. Included on x86-64 alone, after <immintrin.h>.
#pragma once

#include <cstdint>

#include <immintrin.h>

#define SKEIN_BF16_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

namespace skein {

SKEIN_BF16_TARGET inline __m512bh load_bf16(const std::uint16_t* from) {
  return reinterpret_cast<__m512bh>(_mm512_loadu_si512(from));
}
// count 1 to 32; zeros beyond.
SKEIN_BF16_TARGET inline __m512bh load_first_bf16(const std::uint16_t* from, std::int64_t count) {
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

// The first `columns` of four accumulators' sums, plus bias (null: none), rounded into y.
SKEIN_BF16_TARGET inline void store_outputs(const __m512 (&sums)[4], const std::uint16_t* bias, std::int64_t columns,
                                            std::uint16_t* y) {
  const auto kept = static_cast<__mmask8>((1U << columns) - 1);
  __m128 dots = sum_lanes(sums[0], sums[1], sums[2], sums[3]);
  if (bias != nullptr) {
    dots =
        _mm_add_ps(dots, _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(_mm_maskz_loadu_epi16(kept, bias)), 16)));
  }
  _mm_mask_storeu_epi16(y, kept, reinterpret_cast<__m128i>(_mm_cvtneps_pbh(dots)));
}

}  // namespace skein
