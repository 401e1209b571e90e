// The bf16 products of AVX512-BF16, which Debian's Highway does not know yet.
#pragma once

#include "skein/nn/kernels/row_dots.h"

namespace skein {

// With up to this many rows, reading w is what takes the time.
constexpr std::int64_t kStreamedRows = 4;

bool multiplies_bf16();  // whether this CPU has them
// As row_dots_bf16; only where multiplies_bf16().
void row_dots_avx512_bf16(const RowDots& shape, const std::uint16_t* x, const std::uint16_t* w,
                          const std::uint16_t* bias, std::uint16_t* y, std::int64_t begin, std::int64_t end);

}  // namespace skein
