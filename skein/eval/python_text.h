// Text as Python's str methods see it, so that metrics agree with reference packages written in Python.
//
// Text is UTF-8; bytes that are not well-formed stand for themselves and are neither space nor letter.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace skein {

// str.lower(), the final sigma and the dotted capital I included.
std::string lower_text(std::string_view text);
// str.split(): the words between runs of white space (Unicode's, and the four ASCII separators).
std::vector<std::string> split_words(std::string_view text);
// str.rstrip().
std::string_view without_trailing_space(std::string_view text);
// The words joined by one space.
std::string join_words(const std::vector<std::string>& words);
// Whether the character is one of \w of Python's re but the underscore: str.isalnum().
bool is_alphanumeric(char32_t code_point);

}  // namespace skein
