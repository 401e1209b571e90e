#include "skein/text/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "skein/text/utf8.h"

namespace skein {
namespace {

struct Alphabet {
  std::array<std::string, 256> spellings;
  std::array<std::int16_t, 512> bytes;  // of a code point; -1: none

  Alphabet() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      const char32_t code_point = itself ? static_cast<char32_t>(byte) : next++;
      append_utf8(code_point, spellings[byte]);
      bytes[code_point] = static_cast<std::int16_t>(byte);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

std::string_view byte_spelling(unsigned char byte) { return alphabet().spellings[byte]; }

std::string spell_bytes(std::string_view bytes) {
  std::string spelling;
  spelling.reserve(bytes.size() * 2);
  for (const char byte : bytes) spelling += byte_spelling(static_cast<unsigned char>(byte));
  return spelling;
}

std::optional<std::string> bytes_of_spelling(std::string_view spelling) {
  std::string bytes;
  while (!spelling.empty()) {
    const int length = utf8_length(spelling);
    if (length == 0 || length > 2) return std::nullopt;
    const char32_t code_point = decode_utf8(spelling);
    if (code_point >= alphabet().bytes.size() || alphabet().bytes[code_point] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(alphabet().bytes[code_point]));
    spelling.remove_prefix(length);
  }
  return bytes;
}

}  // namespace skein
