// Prefill and decoding of synthetic tokens, as the benchmarks time them.
#pragma once

#include <cstdint>
#include <vector>

#include "skein/nn/backbone.h"

namespace skein {

// The same in every program: (i * 7919 + 13) mod 20000 + 1000.
std::vector<std::int32_t> synthetic_tokens(std::int64_t count);

// The prompt into a new cache as decode() reads it, logits of the last token.
void prefill(const Backbone& backbone, const std::vector<std::int32_t>& tokens, const SlotFiller* filler);

// Median seconds per token of greedy decoding after a prompt of `num_prompt` tokens.
double decode_seconds(const Backbone& backbone, std::int64_t num_prompt, std::int64_t num_new,
                      const SlotFiller* filler);

}  // namespace skein
