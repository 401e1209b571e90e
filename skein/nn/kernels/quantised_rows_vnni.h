// The integer products of AVX512-VNNI, which Debian's Highway does not know yet.
#pragma once

#include "skein/nn/kernels/quantised_rows.h"

namespace skein {

bool multiplies_bytes();  // whether this CPU has them
// As integer_dots; only where multiplies_bytes().
void integer_dots_avx512_vnni(const EightBitInputs& x, const QuantisedRows& w, const std::uint16_t* bias,
                              std::uint16_t* y, std::int64_t y_stride, std::int64_t outputs, std::int64_t begin,
                              std::int64_t end);

}  // namespace skein
