// Elements from one type to another: the kernels behind Checkpoint::read.
//
// Rounding is to nearest even. F64 goes to 16 bits through F32, as PyTorch does. A NaN stays a NaN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "skein/base/result.h"
#include "skein/base/tensor_view.h"

namespace skein {

// True for what convert_elements writes: F32, BF16, F16.
bool is_conversion_target(DType dtype);

// All elements of `from` as `dtype` into `out` (numel * dtype_size(dtype) bytes, checked). dtype is from's own (a
// copy), or from is floating and dtype is F32, BF16 or F16; anything else is an error. Parallel inside.
Status convert_elements(const TensorView& from, DType dtype, std::span<std::byte> out);

// `count` floats as F32, BF16 or F16. On the calling thread. `out` need not be aligned.
void convert_from_f32(const float* from, std::int64_t count, DType dtype, std::byte* out);
// `count` floating elements of any type as floats. On the calling thread. `from` need not be aligned.
void convert_to_f32(DType dtype, const std::byte* from, std::int64_t count, float* out);

}  // namespace skein
