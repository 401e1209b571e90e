// A borrowed, read-only, contiguous (row-major) tensor. The owner of the bytes says until when they live.
#pragma once

#include <cstddef>
#include <span>

#include "skein/base/dtype.h"
#include "skein/base/shape.h"

namespace skein {

struct TensorView {
  DType dtype = DType::kF32;
  Shape shape;
  std::span<const std::byte> bytes;  // numel * dtype_size(dtype); not necessarily aligned
};

}  // namespace skein
