#include "skein/text/utf8.h"

#include <cstdint>
#include <cstring>

namespace skein {
namespace {

bool is_continuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

// Length that a lead byte promises and the range of its second byte; length 0: not a lead byte.
struct Lead {
  int length;
  unsigned char second_low, second_high;
};
Lead lead_of(unsigned char byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte >= 0xC2 && byte <= 0xDF) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

// How many bytes of `text` (all of them or a whole sequence's) agree with the sequence that its first byte begins.
int agreeing_bytes(std::string_view text, const Lead& lead) {
  const auto byte = [&](int i) { return static_cast<unsigned char>(text[i]); };
  const int available = text.size() < 4 ? static_cast<int>(text.size()) : 4;
  int agreeing = 1;
  if (agreeing < lead.length && agreeing < available && byte(1) >= lead.second_low && byte(1) <= lead.second_high) {
    ++agreeing;
    while (agreeing < lead.length && agreeing < available && is_continuation(byte(agreeing))) ++agreeing;
  }
  return agreeing;
}

}  // namespace

int utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  const Lead lead = lead_of(static_cast<unsigned char>(text[0]));
  if (lead.length <= 1) return lead.length;
  return agreeing_bytes(text, lead) == lead.length ? lead.length : 0;
}

char32_t decode_utf8(std::string_view text) {
  const auto byte = [&](int i) { return static_cast<char32_t>(static_cast<unsigned char>(text[i])); };
  if (byte(0) < 0x80) return byte(0);
  if (byte(0) < 0xE0) return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
  if (byte(0) < 0xF0) return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
  return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
}

void append_utf8(char32_t code_point, std::string& text) {
  const auto put = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

std::size_t valid_utf8_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    // Eight ASCII bytes at a time: most text is mostly that.
    std::uint64_t eight = 0;
    if (text.size() - at >= sizeof eight) {
      std::memcpy(&eight, text.data() + at, sizeof eight);
      if ((eight & 0x8080808080808080ULL) == 0) {
        at += sizeof eight;
        continue;
      }
    }
    const int length = utf8_length(text.substr(at));
    if (length == 0) break;
    at += length;
  }
  return at;
}

std::size_t invalid_utf8_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size() && utf8_length(text.substr(at)) == 0) ++at;
  return at;
}

std::size_t incomplete_utf8_suffix(std::string_view text) {
  const std::size_t longest = text.size() < 3 ? text.size() : 3;
  for (std::size_t bytes = 1; bytes <= longest; ++bytes) {
    const std::string_view suffix = text.substr(text.size() - bytes);
    const Lead lead = lead_of(static_cast<unsigned char>(suffix[0]));
    if (lead.length == 0) continue;  // a continuation byte: its lead may stand further left
    const bool promising =
        lead.length > static_cast<int>(bytes) && agreeing_bytes(suffix, lead) == static_cast<int>(bytes);
    return promising ? bytes : 0;
  }
  return 0;
}

}  // namespace skein
