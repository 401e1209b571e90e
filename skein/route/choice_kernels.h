// The inner loops of a router on the CPU: statistics of a row, sharper scores of the best, softmax, choice (Highway).
#pragma once

#include <cstdint>

namespace skein {

struct RowStatistics {
  float inverse_deviation = 0;  // 1 / sqrt(variance + 1e-5), biased, in two passes
  float norm = 0;               // the Euclidean length
};

// Score columns are padded to whole blocks; the bias of a padding column is -inf.
struct ChoiceKernels {
  RowStatistics (*statistics)(const float* x, std::int64_t d);
  void (*widen_bf16)(const std::uint16_t* x, std::int64_t d, float* to);
  // Scores known up to +- norm * radius: those that may be among the k largest are replaced by row . gates[c] in f32,
  // gates (columns, d). room: as many floats as columns.
  void (*sharpen)(float* scores, const float* bias, const float* radius, float norm, const float* row,
                  const float* gates, std::int64_t d, std::int64_t columns, std::int64_t k, float* room);
  // One row: s = scores * factor + bias, NaN taken for -inf; the k largest s in ids, best first, ties to the lower
  // index, and their weights: p / (sum of chosen p + 1e-6) with p the softmax over all columns, or the softmax over the
  // chosen. Of the k only the first whose p together reach top_p, at least one. Columns at -inf get weight 0. Destroys
  // scores.
  void (*choose)(float* scores, const float* bias, float factor, std::int64_t columns, std::int64_t k,
                 bool softmax_over_chosen, float top_p, std::int32_t* ids, float* weights);
};

const ChoiceKernels& choice_kernels();

}  // namespace skein
