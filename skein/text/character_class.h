// Classes of characters that tokenizers and templates ask for.
#pragma once

#include <cstddef>
#include <string_view>

namespace skein {

bool is_white_space(char32_t c);     // the Unicode property White_Space
bool is_word_character(char32_t c);  // letters, marks, decimal digits, connectors: \w of Oniguruma

// The last character of a text; empty if it does not end with a whole one.
std::string_view last_character(std::string_view text);

}  // namespace skein
