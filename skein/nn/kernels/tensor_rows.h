// Tensors as the kernels see them.
#pragma once

#include <atomic>
#include <functional>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include "skein/nn/kernels/row_dots.h"
#include "skein/nn/kernels/row_ops.h"

namespace skein {

// Whether the kernels take it: on the CPU, f32 or bf16.
inline bool has_kernels(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == c10::ScalarType::Float || x.scalar_type() == c10::ScalarType::BFloat16);
}

inline Element element_of(const at::Tensor& x) {
  return x.scalar_type() == c10::ScalarType::Float ? Element::kF32 : Element::kBf16;
}

// x (N, ...) with everything after the first dimension contiguous.
inline bool has_plain_rows(const at::Tensor& x) { return x.numel() == 0 || x[0].is_contiguous(); }
inline at::Tensor with_plain_rows(const at::Tensor& x) { return has_plain_rows(x) ? x : x.contiguous(); }
inline ConstRows rows_of(const at::Tensor& x) { return {x.const_data_ptr(), x.stride(0)}; }
inline MutableRows mutable_rows_of(const at::Tensor& x) { return {x.mutable_data_ptr(), x.stride(0)}; }

template <typename T>
const T* data_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<const T*>(tensor.const_data_ptr()) : nullptr;
}

// body(begin, end) over ranges of a product's outputs, from a multiple of `group` to another or the end: each thread
// reads its part of the weights once, and all of x. beside, if there is one: what the calling thread does first, while
// the others begin; whoever is free takes a range.
template <typename Body>
void parallel_outputs(const RowDots& shape, std::int64_t outputs, std::int64_t group, const Body& body,
                      const std::function<void()>& beside = nullptr) {
  const std::int64_t work = shape.depth * group * std::min<std::int64_t>(shape.rows, 8);
  const std::int64_t grain = std::max<std::int64_t>(1, (1 << 15) / std::max<std::int64_t>(1, work));
  const std::int64_t groups = (outputs + group - 1) / group;
  const auto range = [&](std::int64_t first, std::int64_t last) {
    body(group * first, std::min(group * last, outputs));
  };
  if (!beside) return at::parallel_for(0, groups, grain, range);
  const std::int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const std::int64_t piece = std::max(grain, groups / (threads * 8) + 1);
  std::atomic<std::int64_t> next = 0;
  at::parallel_for(0, threads, 1, [&](std::int64_t thread, std::int64_t) {
    if (thread == 0) beside();
    for (std::int64_t at = next.fetch_add(piece); at < groups; at = next.fetch_add(piece)) {
      range(at, std::min(groups, at + piece));
    }
  });
}

// body(begin, end) over rows of `width` elements; small work stays on the calling thread.
template <typename Body>
void parallel_rows(std::int64_t num_rows, std::int64_t width, const Body& body) {
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(width, 1));
  at::parallel_for(0, num_rows, grain, body);
}

}  // namespace skein
