#include "skein/eval/python_text.h"

#include <utf8proc.h>

#include <algorithm>

#include "skein/text/utf8.h"

namespace skein {
namespace {

// One character of a text, or one stray byte (code point 0).
struct Character {
  char32_t code_point = 0;
  std::size_t num_bytes = 1;
};

Character character_at(std::string_view text, std::size_t at) {
  const std::string_view rest = text.substr(at);
  const int length = utf8_length(rest);
  if (length == 0) return {};
  return {decode_utf8(rest), static_cast<std::size_t>(length)};
}

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

bool is_space(char32_t c) {
  if (c < 0x80) return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20);
  if (c == 0x85) return true;
  const utf8proc_category_t kind = category(c);
  return kind == UTF8PROC_CATEGORY_ZS || kind == UTF8PROC_CATEGORY_ZL || kind == UTF8PROC_CATEGORY_ZP;
}

bool is_cased(char32_t c) {
  const utf8proc_category_t kind = category(c);
  return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LL || kind == UTF8PROC_CATEGORY_LT;
}

// Unicode's Case_Ignorable, near enough for words: marks, format and modifier characters, and word-internal marks.
bool is_case_ignorable(char32_t c) {
  if (c == '\'' || c == '.' || c == ':' || c == '^' || c == '`' || c == 0xb7 || c == 0x2019) return true;
  switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return false;
  }
}

// Unicode's Final_Sigma: a cased letter before and none after, characters between that do not count aside.
bool is_final_sigma(const std::vector<char32_t>& points, std::size_t at) {
  std::size_t before = at, after = at + 1;
  while (before > 0 && is_case_ignorable(points[before - 1])) --before;
  if (before == 0 || !is_cased(points[before - 1])) return false;
  while (after < points.size() && is_case_ignorable(points[after])) ++after;
  return after == points.size() || !is_cased(points[after]);
}

}  // namespace

std::string lower_text(std::string_view text) {
  constexpr char32_t kSigma = 0x3a3, kFinalSigma = 0x3c2, kDottedI = 0x130;
  std::string lower;
  lower.reserve(text.size());
  std::vector<char32_t> points;  // of the whole text, made when a sigma asks for its neighbours
  std::size_t index = 0;
  for (std::size_t at = 0; at < text.size(); ++index) {
    const Character character = character_at(text, at);
    const char32_t c = character.code_point;
    if (c == kSigma && points.empty()) {
      for (std::size_t i = 0; i < text.size();) {
        points.push_back(character_at(text, i).code_point);
        i += character_at(text, i).num_bytes;
      }
    }
    if (c == 0) {
      lower += text[at];
    } else if (c == kDottedI) {
      lower += "i\xcc\x87";
    } else if (c == kSigma && is_final_sigma(points, index)) {
      append_utf8(kFinalSigma, lower);
    } else {
      append_utf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), lower);
    }
    at += character.num_bytes;
  }
  return lower;
}

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  bool in_word = false;
  for (std::size_t at = 0; at < text.size();) {
    const Character character = character_at(text, at);
    if (is_space(character.code_point)) {
      in_word = false;
    } else {
      if (!in_word) words.emplace_back();
      words.back().append(text.substr(at, character.num_bytes));
      in_word = true;
    }
    at += character.num_bytes;
  }
  return words;
}

std::string_view without_trailing_space(std::string_view text) {
  std::size_t end = 0;
  for (std::size_t at = 0; at < text.size();) {
    const Character character = character_at(text, at);
    at += character.num_bytes;
    if (!is_space(character.code_point)) end = at;
  }
  return text.substr(0, end);
}

std::string join_words(const std::vector<std::string>& words) {
  std::string joined;
  for (const std::string& word : words) joined += (joined.empty() ? "" : " ") + word;
  return joined;
}

bool is_alphanumeric(char32_t c) {
  const utf8proc_category_t kind = category(c);
  return (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO) ||
         (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO);
}

}  // namespace skein
