// Tensors as the kernels see them.
#pragma once

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
// reads its part of the weights once, and all of x.
template <typename Body>
void parallel_outputs(const RowDots& shape, std::int64_t outputs, std::int64_t group, const Body& body) {
  const std::int64_t work = shape.depth * group * std::min<std::int64_t>(shape.rows, 8);
  const std::int64_t grain = std::max<std::int64_t>(1, (1 << 15) / std::max<std::int64_t>(1, work));
  at::parallel_for(0, (outputs + group - 1) / group, grain, [&](std::int64_t first, std::int64_t last) {
    body(group * first, std::min(group * last, outputs));
  });
}

// body(begin, end) over rows of `width` elements; small work stays on the calling thread.
template <typename Body>
void parallel_rows(std::int64_t num_rows, std::int64_t width, const Body& body) {
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(width, 1));
  at::parallel_for(0, num_rows, grain, body);
}

}  // namespace skein
