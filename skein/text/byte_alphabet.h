// GPT-2's alphabet: each byte spelled as one printable character, so that a vocabulary of bytes is a vocabulary of
// text. Printable Latin-1 bytes stand for themselves, the others for U+0100 onwards ("Ġ" is the space).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace skein {

// The character of a byte, as UTF-8.
std::string_view byte_spelling(unsigned char byte);
std::string spell_bytes(std::string_view bytes);
// The bytes of a spelling; nothing if one of its characters stands for no byte.
std::optional<std::string> bytes_of_spelling(std::string_view spelling);

}  // namespace skein
