// Which tokens end an answer.
#pragma once

#include <string_view>
#include <vector>

#include "skein/text/added_tokens.h"
#include "skein/text/tokenizer.h"

namespace skein {

// "<|im_end|>", "<end_of_turn>", ...: the names under which the model families end a turn or a text.
bool ends_generation(std::string_view token);

// Fills special.end_of_generation: eos, and those of the added special tokens that end a turn. Rising ids.
void find_end_of_generation(const std::vector<AddedToken>& added, SpecialTokens& special);

}  // namespace skein
