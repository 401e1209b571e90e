#include "skein/nn/kernels/one_query.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "skein/nn/kernels/one_query.cc"
#include <hwy/foreach_target.h>  // compiles what follows once per target

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "skein/nn/kernels/element-inl.h"

HWY_BEFORE_NAMESPACE();
namespace skein::HWY_NAMESPACE {

template <typename T>
HWY_INLINE float dot(const float* q, const T* k, std::int64_t size) {
  Vec sum = hn::Zero(Floats());
  std::int64_t i = 0;
  for (; i + lanes() <= size; i += lanes()) sum = hn::MulAdd(load(q + i), load(k + i), sum);
  float total = hn::GetLane(hn::SumOfLanes(Floats(), sum));
  for (; i < size; ++i) total += q[i] * widen(k[i]);
  return total;
}

// scores -> exp(scores - max), their sum returned.
HWY_INLINE float exponentials(float* scores, std::int64_t count) {
  float largest = -std::numeric_limits<float>::infinity();
  for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, scores[i]);
  const Vec shift = hn::Set(Floats(), largest);
  Vec sum = hn::Zero(Floats());
  std::int64_t i = 0;
  for (; i + lanes() <= count; i += lanes()) {
    const Vec weight = hn::Exp(Floats(), hn::Sub(load(scores + i), shift));
    store(weight, scores + i);
    sum = hn::Add(sum, weight);
  }
  float total = hn::GetLane(hn::SumOfLanes(Floats(), sum));
  for (; i < count; ++i) {
    scores[i] = std::exp(scores[i] - largest);
    total += scores[i];
  }
  return total;
}

// run(key, count, row): keys [key, key + count) lie side by side from `row`.
template <typename T, typename Run>
HWY_INLINE void each_run(const KeyPages& pages, const void* const* rows, std::int64_t keys, std::int64_t stride,
                         const Run& run) {
  for (std::int64_t key = 0; key < keys;) {
    const std::int64_t page = (pages.first + key) / pages.page_size, row = (pages.first + key) % pages.page_size;
    const std::int64_t count = std::min(pages.page_size - row, keys - key);
    run(key, count, static_cast<const T*>(rows[page]) + pages.offset + row * stride);
    key += count;
  }
}

// out = factor * sum over keys of weights[key] * v[key].
template <typename T>
HWY_INLINE void weigh(const OneQuery& shape, const float* weights, const KeyPages& pages, float factor, T* out) {
  constexpr std::int64_t kBlock = 4;  // vectors of the head at once
  std::int64_t i = 0;
  for (; i + kBlock * lanes() <= shape.d_head; i += kBlock * lanes()) {
    Vec a = hn::Zero(Floats()), b = a, c = a, d = a;
    each_run<T>(pages, pages.v, shape.keys, shape.v_stride, [&](std::int64_t first, std::int64_t count, const T* v) {
      for (std::int64_t key = 0; key < count; ++key) {
        const T* row = v + key * shape.v_stride + i;
        const Vec weight = hn::Set(Floats(), weights[first + key]);
        a = hn::MulAdd(weight, load(row), a);
        b = hn::MulAdd(weight, load(row + lanes()), b);
        c = hn::MulAdd(weight, load(row + 2 * lanes()), c);
        d = hn::MulAdd(weight, load(row + 3 * lanes()), d);
      }
    });
    const Vec factors = hn::Set(Floats(), factor);
    store(hn::Mul(a, factors), out + i);
    store(hn::Mul(b, factors), out + i + lanes());
    store(hn::Mul(c, factors), out + i + 2 * lanes());
    store(hn::Mul(d, factors), out + i + 3 * lanes());
  }
  for (; i < shape.d_head; ++i) {
    float sum = 0;
    each_run<T>(pages, pages.v, shape.keys, shape.v_stride, [&](std::int64_t first, std::int64_t count, const T* v) {
      for (std::int64_t key = 0; key < count; ++key) sum += weights[first + key] * widen(v[key * shape.v_stride + i]);
    });
    narrow_to(sum * factor, out + i);
  }
}

template <typename T>
void attend(const OneQuery& shape, const T* q, const KeyPages& pages, float* scratch, T* out) {
  float* wide_q = scratch;                                      // (heads_per_kv, d_head)
  float* scores = scratch + shape.heads_per_kv * shape.d_head;  // (heads_per_kv, keys)
  for (std::int64_t i = 0; i < shape.heads_per_kv * shape.d_head; ++i) wide_q[i] = widen(q[i]) * shape.scale;
  each_run<T>(pages, pages.k, shape.keys, shape.k_stride, [&](std::int64_t first, std::int64_t count, const T* k) {
    for (std::int64_t key = 0; key < count; ++key) {
      for (std::int64_t head = 0; head < shape.heads_per_kv; ++head) {
        scores[head * shape.keys + first + key] =
            dot(wide_q + head * shape.d_head, k + key * shape.k_stride, shape.d_head);
      }
    }
  });
  for (std::int64_t head = 0; head < shape.heads_per_kv; ++head) {
    const float sum = exponentials(scores + head * shape.keys, shape.keys);
    weigh(shape, scores + head * shape.keys, pages, 1 / sum, out + head * shape.d_head);
  }
}

void attend_entry(const OneQuery& shape, const void* q, const KeyPages& pages, float* scratch, void* out) {
  if (shape.element == Element::kF32) {
    return attend(shape, static_cast<const float*>(q), pages, scratch, static_cast<float*>(out));
  }
  attend(shape, static_cast<const std::uint16_t*>(q), pages, scratch, static_cast<std::uint16_t*>(out));
}

}  // namespace skein::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace skein {

HWY_EXPORT(attend_entry);

void attend_one_query(const OneQuery& shape, const void* q, const KeyPages& pages, float* scratch, void* out) {
  HWY_DYNAMIC_DISPATCH(attend_entry)(shape, q, pages, scratch, out);
}

}  // namespace skein
#endif  // HWY_ONCE
