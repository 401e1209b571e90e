// The inner loops of a router on the CPU: statistics of a row, softmax and choice of the k best (Highway).
#pragma once

#include <cstdint>

namespace skein {

// Score columns are padded to whole blocks; the bias of a padding column is -inf.
struct ChoiceKernels {
  // 1 / sqrt(variance of the row + 1e-5), biased, in two passes.
  float (*inverse_deviation)(const float* x, std::int64_t d);
  void (*widen_bf16)(const std::uint16_t* x, std::int64_t d, float* to);
  // One row: s = scores * factor + bias, NaN taken for -inf; the k largest s in ids, best first, ties to the lower
  // index, and their weights: p / (sum of chosen p + 1e-6) with p the softmax over all columns, or the softmax over the
  // chosen. Columns at -inf get weight 0. Destroys scores.
  void (*choose)(float* scores, const float* bias, float factor, std::int64_t columns, std::int64_t k,
                 bool softmax_over_chosen, std::int32_t* ids, float* weights);
};

const ChoiceKernels& choice_kernels();

}  // namespace skein
