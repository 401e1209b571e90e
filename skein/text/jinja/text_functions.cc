#include "skein/text/jinja/text_functions.h"

#include <utf8proc.h>

#include <algorithm>

#include "skein/text/character_class.h"
#include "skein/text/utf8.h"

namespace skein::jinja {
namespace {

// str.isspace(): White_Space and the four separators of ASCII.
bool is_python_space(std::string_view character) {
  const char32_t c = decode_utf8(character);
  return is_white_space(c) || (c >= 0x1C && c <= 0x1F);
}

std::string map_characters(std::string_view text, utf8proc_int32_t (*map)(utf8proc_int32_t)) {
  std::string out;
  out.reserve(text.size());
  for (const std::string_view character : characters_of(text)) {
    append_utf8(static_cast<char32_t>(map(static_cast<utf8proc_int32_t>(decode_utf8(character)))), out);
  }
  return out;
}

}  // namespace

// Templates and messages are UTF-8 by contract; a stray byte counts as a character of its own.
std::vector<std::string_view> characters_of(std::string_view text) {
  std::vector<std::string_view> characters;
  characters.reserve(text.size());
  while (!text.empty()) {
    const int length = std::max(1, utf8_length(text));
    characters.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return characters;
}

std::string strip(std::string_view text, std::string_view characters, bool left, bool right) {
  const auto all = characters_of(text);
  const auto goes = [&](std::string_view character) {
    return characters.empty() ? is_python_space(character) : characters.find(character) != std::string_view::npos;
  };
  std::size_t begin = 0, end = all.size();
  while (left && begin < end && goes(all[begin])) ++begin;
  while (right && begin < end && goes(all[end - 1])) --end;
  if (begin == end) return {};
  return std::string(all[begin].data(), all[end - 1].data() + all[end - 1].size());
}

std::string lower(std::string_view text) { return map_characters(text, utf8proc_tolower); }
std::string upper(std::string_view text) { return map_characters(text, utf8proc_toupper); }

std::string capitalize(std::string_view text) {
  const std::size_t first = std::min<std::size_t>(text.size(), std::max(1, utf8_length(text)));
  return map_characters(text.substr(0, first), utf8proc_totitle) + lower(text.substr(first));
}

std::string title(std::string_view text) {
  std::string out;
  bool starts = true;
  for (const std::string_view character : characters_of(text)) {
    out += starts ? map_characters(character, utf8proc_totitle) : lower(character);
    // Jinja's own rule: words begin after white space, hyphens and opening brackets.
    starts = is_python_space(character) || std::string_view("-([{<").find(character) != std::string_view::npos;
  }
  return out;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to, std::int64_t most) {
  std::string out;
  if (from.empty()) {  // Python puts `to` between all characters
    for (const std::string_view character : characters_of(text)) {
      if (most-- != 0) out += to;
      out += character;
    }
    if (most != 0) out += to;
    return out;
  }
  for (; most != 0; --most) {
    const std::size_t at = text.find(from);
    if (at == std::string_view::npos) break;
    out += text.substr(0, at);
    out += to;
    text.remove_prefix(at + from.size());
  }
  out += text;
  return out;
}

Value::List split(std::string_view text, std::string_view separator, std::int64_t most) {
  Value::List parts;
  if (!separator.empty()) {
    for (; most != 0; --most) {
      const std::size_t at = text.find(separator);
      if (at == std::string_view::npos) break;
      parts.emplace_back(std::string(text.substr(0, at)));
      text.remove_prefix(at + separator.size());
    }
    parts.emplace_back(std::string(text));
    return parts;
  }
  const auto characters = characters_of(text);
  for (std::size_t at = 0; at < characters.size();) {
    if (is_python_space(characters[at])) {
      ++at;
      continue;
    }
    std::size_t end = at;
    const bool rest = most-- == 0;  // no more cuts: what is left stays whole
    while (end < characters.size() && (rest || !is_python_space(characters[end]))) ++end;
    parts.emplace_back(std::string(characters[at].data(), characters[end - 1].data() + characters[end - 1].size()));
    at = end;
  }
  return parts;
}

Value::List rsplit(std::string_view text, std::string_view separator, std::int64_t most) {
  Value::List parts;
  for (; most != 0; --most) {
    const std::size_t at = text.rfind(separator);
    if (at == std::string_view::npos) break;
    parts.emplace_back(std::string(text.substr(at + separator.size())));
    text = text.substr(0, at);
  }
  parts.emplace_back(std::string(text));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Value::List split_lines(std::string_view text) {
  Value::List lines;
  while (!text.empty()) {
    const std::size_t end = text.find_first_of("\r\n");
    lines.emplace_back(std::string(text.substr(0, end)));
    if (end == std::string_view::npos) break;
    text.remove_prefix(text.substr(end).starts_with("\r\n") ? end + 2 : end + 1);
  }
  return lines;
}

}  // namespace skein::jinja
