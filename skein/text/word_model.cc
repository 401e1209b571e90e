#include "skein/text/word_model.h"

#include <cstdio>

namespace skein {

ByteFallback::ByteFallback(const Vocabulary& vocabulary) {
  for (int byte = 0; byte < 256; ++byte) {
    char spelling[8];
    std::snprintf(spelling, sizeof spelling, "<0x%02X>", byte);
    const auto id = vocabulary.find(spelling);
    ids_[byte] = id.value_or(-1);
    complete_ = complete_ && id.has_value();
  }
}

int ByteFallback::byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int byte = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return -1;
    byte = byte * 16 + digit;
  }
  return byte;
}

}  // namespace skein
