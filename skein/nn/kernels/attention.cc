#include "skein/nn/kernels/attention.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "skein/nn/kernels/row_dots_bf16.h"  // multiplies_bf16

#undef SKEIN_UNROLL
#define SKEIN_UNROLL _Pragma("GCC unroll 8")

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "skein/nn/kernels/attention.cc"
#include <hwy/foreach_target.h>  // compiles what follows once per target

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "skein/nn/kernels/element-inl.h"

HWY_BEFORE_NAMESPACE();
namespace skein::HWY_NAMESPACE {

// What a product multiplies: a 32-bit unit is one f32, or with AVX512-BF16 two bf16 of neighbouring depth. Units travel
// through registers and memory as floats, whatever their bits.
struct Single {
  static constexpr std::int64_t kDepth = 1;
  static HWY_INLINE Vec multiply_add(Vec a, Vec b, Vec sum) { return hn::MulAdd(a, b, sum); }
};
#if HWY_TARGET == HWY_AVX3
struct Pair {
  static constexpr std::int64_t kDepth = 2;
  static HWY_INLINE Vec multiply_add(Vec a, Vec b, Vec sum) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));  // Debian's Highway has no name for it
    return sum;
  }
};
#endif

constexpr int kRowsAtOnce = 6;
constexpr int kVectorsAtOnce = HWY_TARGET <= HWY_AVX3 ? 4 : 2;
constexpr std::int64_t kBlockRows = 2 * kRowsAtOnce;

std::int64_t padded(std::int64_t count) { return (count + lanes() - 1) / lanes() * lanes(); }
template <typename Unit>
std::int64_t units(std::int64_t depth) {
  return (depth + Unit::kDepth - 1) / Unit::kDepth;
}

// c[r, :] = sum over u of a[r, u] b[u, :] for a panel of kVectors vectors; in the order of u, whatever the tile.
template <typename Unit, int kRows, int kVectors>
void tile(const float* HWY_RESTRICT a, std::int64_t a_stride, const float* HWY_RESTRICT b, std::int64_t b_stride,
          std::int64_t depth_units, float* HWY_RESTRICT c, std::int64_t c_stride) {
  const Floats d;
  Vec sums[kRows][kVectors];
  SKEIN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    SKEIN_UNROLL
    for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::Zero(d);
  }
  for (std::int64_t u = 0; u < depth_units; ++u) {
    Vec columns[kVectors];
    SKEIN_UNROLL
    for (int v = 0; v < kVectors; ++v) columns[v] = load(b + u * b_stride + v * lanes());
    SKEIN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Vec row = hn::Set(d, a[r * a_stride + u]);
      SKEIN_UNROLL
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Unit::multiply_add(row, columns[v], sums[r][v]);
    }
  }
  SKEIN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    SKEIN_UNROLL
    for (int v = 0; v < kVectors; ++v) store(sums[r][v], c + r * c_stride + v * lanes());
  }
}

template <typename Unit, int kRows>
void panels(const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride, std::int64_t depth_units,
            float* c, std::int64_t c_stride, std::int64_t columns) {
  std::int64_t column = 0;
  for (; column + kVectorsAtOnce * lanes() <= columns; column += kVectorsAtOnce * lanes()) {
    tile<Unit, kRows, kVectorsAtOnce>(a, a_stride, b + column, b_stride, depth_units, c + column, c_stride);
  }
  for (; column < columns; column += lanes()) {
    tile<Unit, kRows, 1>(a, a_stride, b + column, b_stride, depth_units, c + column, c_stride);
  }
}

// c (rows, columns) = a (rows, depth) b (depth, columns); columns a multiple of lanes().
template <typename Unit>
void multiply(const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride, std::int64_t depth_units,
              float* c, std::int64_t c_stride, std::int64_t rows, std::int64_t columns) {
  std::int64_t row = 0;
  const auto run = [&](auto product, std::int64_t count) {
    product(a + row * a_stride, a_stride, b, b_stride, depth_units, c + row * c_stride, c_stride, columns);
    row += count;
  };
  while (row + kRowsAtOnce <= rows) run(panels<Unit, kRowsAtOnce>, kRowsAtOnce);
  if (row + 4 <= rows) run(panels<Unit, 4>, 4);
  if (row + 2 <= rows) run(panels<Unit, 2>, 2);
  if (row < rows) run(panels<Unit, 1>, 1);
}

// Unit u of a row: element u, or elements 2u and 2u + 1.
template <typename Unit, typename T>
HWY_INLINE float unit_of(const T* row, std::int64_t u, std::int64_t size) {
  if constexpr (Unit::kDepth == 1) {
    return widen(row[u]);
  } else {
    const std::uint32_t second = 2 * u + 1 < size ? row[2 * u + 1] : 0;
    return std::bit_cast<float>(static_cast<std::uint32_t>(row[2 * u]) | second << 16);
  }
}

template <typename Unit, typename T>
void pack(const AttentionShape& shape, std::int64_t begin, std::int64_t count, const T* k, const T* v, float* packed) {
  const std::int64_t keys = padded(shape.keys), width = padded(shape.d_head), depth = units<Unit>(shape.d_head);
  float* transposed = packed;             // (Dh, keys)
  float* values = packed + depth * keys;  // (keys, Dh)
  if (begin == 0) {
    std::memset(packed, 0, static_cast<std::size_t>(depth * keys + units<Unit>(keys) * width) * sizeof(float));
  }
  constexpr std::int64_t kTile = 16;  // of the transposition: both sides stay in the first cache
  for (std::int64_t first = 0; first < count; first += kTile) {
    for (std::int64_t u = 0; u < depth; ++u) {
      for (std::int64_t key = first; key < std::min(first + kTile, count); ++key) {
        transposed[u * keys + begin + key] = unit_of<Unit>(k + key * shape.k_stride, u, shape.d_head);
      }
    }
  }
  for (std::int64_t key = 0; key < count; ++key) {
    const T* row = v + key * shape.v_stride;
    float* to = values + (begin + key) / Unit::kDepth * width;
    if constexpr (Unit::kDepth == 1) {
      for (std::int64_t i = 0; i < shape.d_head; ++i) to[i] = widen(row[i]);
    } else if (key % 2 == 0) {
      const T* next = key + 1 < count ? row + shape.v_stride : nullptr;
      for (std::int64_t i = 0; i < shape.d_head; ++i) {
        const std::uint32_t second = next == nullptr ? 0 : next[i];
        to[i] = std::bit_cast<float>(static_cast<std::uint32_t>(row[i]) | second << 16);
      }
    }
  }
}

// The keys query `row` sees: [first, end).
struct Seen {
  std::int64_t first, end;
};
Seen seen_by(const AttentionShape& shape, std::int64_t row) {
  const std::int64_t position = shape.keys - shape.queries + row;
  if (!shape.causal) return {0, shape.keys};
  return {shape.window > 0 ? std::max<std::int64_t>(0, position + 1 - shape.window) : 0, position + 1};
}

// scores [0, count) -> exponentials of scaled scores, 0 where not seen. Returns their sum; `largest` is what was
// subtracted.
float soften(const AttentionShape& shape, std::int64_t row, Seen seen, std::int64_t count, float* scores,
             float* largest) {
  const Floats d;
  const float hidden = -std::numeric_limits<float>::infinity();
  std::fill(scores, scores + seen.first, hidden);
  std::fill(scores + seen.end, scores + count, hidden);
  const float* mask = shape.mask == nullptr ? nullptr : shape.mask + row * shape.mask_stride;
  Vec top = hn::Set(d, hidden);
  const Vec scale = hn::Set(d, shape.scale);
  const std::int64_t plain = mask == nullptr ? count : std::min(count, shape.keys) / lanes() * lanes();
  for (std::int64_t i = 0; i < plain; i += lanes()) {
    Vec score = hn::Mul(load(scores + i), scale);
    if (mask != nullptr) score = hn::Add(score, load(mask + i));
    store(score, scores + i);
    top = hn::Max(top, score);
  }
  *largest = hn::GetLane(hn::MaxOfLanes(d, top));
  for (std::int64_t i = plain; i < count; ++i) {  // where a row of the mask ends
    if (i < shape.keys) scores[i] = scores[i] * shape.scale + mask[i];
    *largest = std::max(*largest, scores[i]);
  }
  const Vec shift = hn::Set(d, *largest);
  Vec sum = hn::Zero(d);
  for (std::int64_t i = 0; i < count; i += lanes()) {
    const Vec weight = hn::Exp(d, hn::Sub(load(scores + i), shift));
    store(weight, scores + i);
    sum = hn::Add(sum, weight);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

template <typename Unit, typename T>
void attend(const AttentionShape& shape, const T* q, const float* packed, std::int64_t begin, std::int64_t end, T* out,
            float* log_sums, std::int64_t log_sum_stride) {
  const std::int64_t keys = padded(shape.keys), width = padded(shape.d_head);
  const float* transposed = packed;
  const float* values = packed + units<Unit>(shape.d_head) * keys;
  const std::int64_t q_units = units<Unit>(shape.d_head);
  thread_local std::vector<float> scratch;
  scratch.assign(static_cast<std::size_t>(kBlockRows * (q_units + 2 * keys + width)), 0.0F);
  float* queries = scratch.data();                 // (rows, Dh) units
  float* scores = queries + kBlockRows * q_units;  // (rows, keys)
  float* weights = scores + kBlockRows * keys;     // (rows, keys) units
  float* sums = weights + kBlockRows * keys;       // (rows, Dh)
  for (std::int64_t first = begin; first < end; first += kBlockRows) {
    const std::int64_t rows = std::min(kBlockRows, end - first);
    // Keys that any row of the block sees, in whole vectors: the others are left out of both products.
    const std::int64_t from = seen_by(shape, first).first / lanes() * lanes();
    const std::int64_t count = padded(seen_by(shape, first + rows - 1).end) - from;
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* row = q + (first + r) * shape.q_stride;
      for (std::int64_t u = 0; u < q_units; ++u) queries[r * q_units + u] = unit_of<Unit>(row, u, shape.d_head);
    }
    multiply<Unit>(queries, q_units, transposed + from, keys, q_units, scores, keys, rows, count);
    AttentionShape block = shape;  // keys counted from `from`
    block.keys -= from;
    if (block.mask != nullptr) block.mask += from;
    for (std::int64_t r = 0; r < rows; ++r) {
      const Seen seen = seen_by(shape, first + r);
      float* row = scores + r * keys;
      float largest;
      const float sum = soften(block, first + r, {seen.first - from, seen.end - from}, count, row, &largest);
      if (log_sums != nullptr) log_sums[(first + r) * log_sum_stride] = largest + std::log(sum);
      if constexpr (Unit::kDepth == 2) {
        auto* narrow = reinterpret_cast<std::uint16_t*>(weights + r * keys);
        for (std::int64_t i = 0; i < count; i += lanes()) store(load(row + i), narrow + i);
      }
      queries[r * q_units] = 1 / sum;  // its query is not needed any more
    }
    const float* factors = Unit::kDepth == 2 ? weights : scores;
    multiply<Unit>(factors, keys, values + from / Unit::kDepth * width, width, count / Unit::kDepth, sums, width, rows,
                   width);
    for (std::int64_t r = 0; r < rows; ++r) {
      const float factor = queries[r * q_units];
      const float* from_row = sums + r * width;
      T* to = out + (first + r) * shape.out_stride;
      std::int64_t i = 0;
      for (; i + lanes() <= shape.d_head; i += lanes())
        store(hn::Mul(load(from_row + i), hn::Set(Floats(), factor)), to + i);
      for (; i < shape.d_head; ++i) narrow_to(from_row[i] * factor, to + i);
    }
  }
}

// run(unit, element) with the kind of product for the element type.
template <typename Run>
HWY_INLINE void with_unit(Element element, const Run& run) {
  if (element == Element::kF32) return run(Single(), static_cast<const float*>(nullptr));
#if HWY_TARGET == HWY_AVX3
  if (multiplies_bf16()) return run(Pair(), static_cast<const std::uint16_t*>(nullptr));
#endif
  run(Single(), static_cast<const std::uint16_t*>(nullptr));
}

std::int64_t packed_size_entry(const AttentionShape& shape) {
  std::int64_t size = 0;
  with_unit(shape.element, [&](auto unit, auto) {
    using Unit = decltype(unit);
    size = units<Unit>(shape.d_head) * padded(shape.keys) + units<Unit>(padded(shape.keys)) * padded(shape.d_head);
  });
  return size;
}

void pack_entry(const AttentionShape& shape, std::int64_t first, std::int64_t count, const void* k, const void* v,
                float* packed) {
  with_unit(shape.element, [&](auto unit, auto type) {
    pack<decltype(unit)>(shape, first, count, static_cast<decltype(type)>(k), static_cast<decltype(type)>(v), packed);
  });
}

void attend_entry(const AttentionShape& shape, const void* q, const float* packed, std::int64_t begin, std::int64_t end,
                  void* out, float* log_sums, std::int64_t log_sum_stride) {
  with_unit(shape.element, [&](auto unit, auto type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
    attend<decltype(unit)>(shape, static_cast<const T*>(q), packed, begin, end, static_cast<T*>(out), log_sums,
                           log_sum_stride);
  });
}

}  // namespace skein::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace skein {

HWY_EXPORT(packed_size_entry);
HWY_EXPORT(pack_entry);
HWY_EXPORT(attend_entry);

std::int64_t packed_size(const AttentionShape& shape) { return HWY_DYNAMIC_DISPATCH(packed_size_entry)(shape); }
void pack_keys_and_values(const AttentionShape& shape, std::int64_t first, std::int64_t count, const void* k,
                          const void* v, float* packed) {
  HWY_DYNAMIC_DISPATCH(pack_entry)(shape, first, count, k, v, packed);
}
void attend_rows(const AttentionShape& shape, const void* q, const float* packed, std::int64_t begin, std::int64_t end,
                 void* out, float* log_sums, std::int64_t log_sum_stride) {
  HWY_DYNAMIC_DISPATCH(attend_entry)(shape, q, packed, begin, end, out, log_sums, log_sum_stride);
}

}  // namespace skein
#endif  // HWY_ONCE
