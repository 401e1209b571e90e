// The next token from a row of logits.
#pragma once

#include <cstdint>
#include <span>

#include "skein/text/tokenizer.h"

namespace skein {

// Drawn from softmax(logits / temperature) cut to the smallest set of most probable tokens that holds at least top_p,
// ties to the lower id. `draw` in [0, 1) decides: the same draw, the same token. temperature > 0. Logits of -inf are
// never drawn; NaN among them throws Failure.
TokenId sample_token(std::span<const float> logits, double temperature, double top_p, double draw);

// Throws the Failure of logits that are NaN, of which no token can be chosen.
[[noreturn]] void refuse_nan_logits();

// Uniform in [0, 1), a function of its arguments alone (SplitMix64's finalizer over a counter): no state to carry, so a
// text does not depend on what else is decoded.
double uniform_draw(std::uint64_t seed, std::uint64_t counter);

}  // namespace skein
