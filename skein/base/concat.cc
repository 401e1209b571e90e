#include "skein/base/concat.h"

#include <cstdio>

namespace skein {

std::string printable(std::string_view untrusted, std::size_t max_bytes) {
  std::string safe;
  for (std::size_t i = 0; i < untrusted.size() && i < max_bytes; ++i) {
    const unsigned char byte = static_cast<unsigned char>(untrusted[i]);
    if (byte < 0x20 || byte == 0x7f) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", byte);
      safe += escaped;
    } else {
      safe += static_cast<char>(byte);
    }
  }
  if (untrusted.size() > max_bytes) safe += "...";
  return safe;
}

}  // namespace skein
