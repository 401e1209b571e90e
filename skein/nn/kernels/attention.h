// Attention of the rows of one sequence, head by head: scores, softmax and the weighted sum of values in blocks that
// stay in a core's caches (the idea of arXiv 2205.14135; all scores of a few rows fit, so no running maximum is
// needed).
//
// Keys and values are packed once per head of keys, so that both products run along vectors without a sum across lanes.
// A row's result depends on its own query and on the keys it sees, never on the rows computed beside it.
#pragma once

#include <cstdint>

#include "skein/nn/kernels/row_ops.h"

namespace skein {

// Query i of `queries` stands at key keys - queries + i.
struct AttentionShape {
  Element element = Element::kF32;
  std::int64_t queries = 0, keys = 0, d_head = 0;
  std::int64_t q_stride = 0, k_stride = 0, v_stride = 0, out_stride = 0;  // elements between rows
  float scale = 1;
  bool causal = true;           // no key after the query is seen
  std::int64_t window = 0;      // with causal: keys seen, the query's own included; 0: all
  const float* mask = nullptr;  // (queries, keys) added to the scaled scores, rows mask_stride apart; null: none
  std::int64_t mask_stride = 0;
};

// Floats that the packed keys and values of one head take.
std::int64_t packed_size(const AttentionShape& shape);
// Keys [first, first + count), from k and v on; in order, the first call with first = 0. first is even.
void pack_keys_and_values(const AttentionShape& shape, std::int64_t first, std::int64_t count, const void* k,
                          const void* v, float* packed);

// Rows [begin, end) of one query head. q and out: row 0 of that head. log_sums: log of the sum of exponentials of row
// 0, rows log_sum_stride apart; may be null.
void attend_rows(const AttentionShape& shape, const void* q, const float* packed, std::int64_t begin, std::int64_t end,
                 void* out, float* log_sums, std::int64_t log_sum_stride);

}  // namespace skein
