// Attention of one query token over the keys and values of its sequence: the decoding step.
#pragma once

#include <cstdint>

#include "skein/nn/kernels/row_ops.h"

namespace skein {

struct OneQuery {
  Element element = Element::kF32;
  std::int64_t heads_per_kv = 1;  // query heads that share one head of keys
  std::int64_t d_head = 0;
  std::int64_t keys = 0;
  std::int64_t k_stride = 0;  // elements between keys, between values
  std::int64_t v_stride = 0;
  float scale = 1;
};

// Keys and values in pages: key i is row (first + i) % page_size of page (first + i) / page_size, whose rows begin
// `offset` elements into it.
struct KeyPages {
  const void* const* k = nullptr;
  const void* const* v = nullptr;
  std::int64_t page_size = 0;
  std::int64_t first = 0;
  std::int64_t offset = 0;
};

// One head of keys: q and out (heads_per_kv, d_head) contiguous. Scores and sums are f32. The same bits however the
// keys are paged. scratch: heads_per_kv * (keys + d_head) floats.
void attend_one_query(const OneQuery& shape, const void* q, const KeyPages& pages, float* scratch, void* out);

}  // namespace skein
