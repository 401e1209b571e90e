// The bf16 parts of quantised_rows.h with AVX512-BF16, which Debian's Highway does not know yet. Only where
// multiplies_bf16().
#pragma once

#include "skein/nn/kernels/quantised_rows.h"

namespace skein {

// With up to this many rows of x, reading w is what takes the time.
constexpr std::int64_t kFewRows = 4;

void restore_rows_avx512_bf16(const QuantisedRows& w, std::int64_t begin, std::int64_t end, std::uint16_t* out);
// As quantised_dots_bf16 with 1 to kFewRows rows.
void few_dots_avx512_bf16(const RowDots& shape, const std::uint16_t* x, const QuantisedRows& w,
                          const std::uint16_t* bias, std::uint16_t* y, std::int64_t begin, std::int64_t end);

}  // namespace skein
