// The bf16 kernels where one instruction multiplies two pairs of bf16 and adds them to an f32 (Zen 4, Cooper Lake and
// later). Debian 12's Highway (1.0.3) does not know this instruction set yet.
#include "skein/experts/lora_kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#pragma GCC push_options
// g++ 12 warns about its own intrinsics (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx2,fma,avx512f,avx512vl,avx512dq,avx512bw,avx512bf16")
namespace skein {
namespace avx512bf16 {

struct Bf16Ops {
  using T = std::uint16_t;
  using V = __m512;
  using W = __m512i;
  using X = __m512i;
  static constexpr int kLanes = 16;
  static constexpr int kPack = 2;
  static constexpr int kShrinkRows = 8;
  static constexpr int kChains = 2;
  static constexpr int project_rows(int vectors) { return vectors <= 2 ? 8 : 6; }
  static inline V Zero() { return _mm512_setzero_ps(); }
  static inline void StoreF(V v, float* p) { _mm512_storeu_ps(p, v); }
  static inline W LoadW(const T* p) { return _mm512_loadu_si512(p); }
  static inline X Spread(const T* p) {
    int pair;
    __builtin_memcpy(&pair, p, sizeof(pair));
    return _mm512_set1_epi32(pair);
  }
  static inline X SpreadLast(const T* p) { return _mm512_set1_epi32(*p); }
  static inline V Dot(V sum, W w, X x) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
  }
  static inline V Add(V a, V b) { return _mm512_add_ps(a, b); }
  static inline V Scale(V a, float s) { return _mm512_mul_ps(a, _mm512_set1_ps(s)); }
  static inline V LoadT(const T* p) {
    const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
  }
  static inline void StoreT(V v, T* p) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
  }
};

#include "skein/experts/lora_tiles-inl.h"

}  // namespace avx512bf16

const LoraKernels<std::uint16_t>* lora_kernels_bf16_avx512() {
  using avx512bf16::Bf16Ops;
  static const LoraKernels<std::uint16_t> kernels{avx512bf16::shrink<Bf16Ops>, avx512bf16::expand<Bf16Ops>,
                                                  avx512bf16::project<Bf16Ops>};
  static const bool supported = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl") &&
                                __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  return supported ? &kernels : nullptr;
}

}  // namespace skein
#pragma GCC pop_options

#else

namespace skein {
const LoraKernels<std::uint16_t>* lora_kernels_bf16_avx512() { return nullptr; }
}  // namespace skein

#endif
