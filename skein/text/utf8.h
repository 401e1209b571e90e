// UTF-8 as Unicode table 3-7 defines it: no overlong forms, no surrogates, nothing past U+10FFFF.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace skein {

// Bytes of the well-formed sequence that `text` starts with; 0 if it starts with none.
int utf8_length(std::string_view text);

// The code point of a well-formed sequence at the start of `text`.
char32_t decode_utf8(std::string_view text);
void append_utf8(char32_t code_point, std::string& text);

// Bytes of the longest well-formed start of `text`, and of the longest start in which no sequence is well-formed.
std::size_t valid_utf8_prefix(std::string_view text);
std::size_t invalid_utf8_prefix(std::string_view text);

// Bytes at the end of `text` that more bytes could still complete to a character (0 to 3).
std::size_t incomplete_utf8_suffix(std::string_view text);

}  // namespace skein
