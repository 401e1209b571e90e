#include "skein/text/charsmap.h"

#include <utf8proc.h>

#include <cstring>

#include "skein/base/concat.h"
#include "skein/text/utf8.h"

namespace skein {
namespace {

// The fields of a Darts-clone unit (github.com/s-yata/darts-clone, include/darts.h, class DoubleArrayUnit).
bool has_leaf(std::uint32_t unit) { return (unit >> 8 & 1) == 1; }
std::uint32_t value_of(std::uint32_t unit) { return unit & 0x7FFFFFFF; }
std::uint32_t label_of(std::uint32_t unit) { return unit & (0x80000000U | 0xFF); }
std::uint32_t offset_of(std::uint32_t unit) { return unit >> 10 << ((unit & 0x200) >> 6); }

constexpr std::size_t kWholeClusterBytes = 6;  // clusters shorter than this are looked up whole

// Bytes of the first grapheme cluster (UAX 29).
std::size_t cluster_length(std::string_view text) {
  std::size_t length = utf8_length(text);
  std::int32_t state = 0;
  auto previous = static_cast<std::int32_t>(decode_utf8(text));
  while (length < text.size()) {
    const auto next = static_cast<std::int32_t>(decode_utf8(text.substr(length)));
    if (utf8proc_grapheme_break_stateful(previous, next, &state)) break;
    length += utf8_length(text.substr(length));
    previous = next;
  }
  return length;
}

}  // namespace

Result<Charsmap> Charsmap::parse(std::string_view bytes, const std::string& where) {
  std::uint32_t trie_bytes = 0;
  if (bytes.size() >= sizeof trie_bytes) std::memcpy(&trie_bytes, bytes.data(), sizeof trie_bytes);
  if (bytes.size() < sizeof trie_bytes || trie_bytes > bytes.size() - sizeof trie_bytes || trie_bytes % 4 != 0) {
    return Error{concat(where, ": the precompiled_charsmap has ", bytes.size(), " bytes and says that its trie has ",
                        trie_bytes, "; the file is damaged")};
  }
  Charsmap map;
  map.units_.resize(trie_bytes / 4);
  if (trie_bytes > 0) std::memcpy(map.units_.data(), bytes.data() + sizeof trie_bytes, trie_bytes);
  map.replacements_ = bytes.substr(sizeof trie_bytes + trie_bytes);
  map.replacements_.push_back('\0');  // so that every replacement ends
  return map;
}

std::optional<std::string_view> Charsmap::replacement(std::string_view chunk) const {
  if (units_.empty()) return std::nullopt;
  std::size_t at = offset_of(units_[0]);
  for (const char c : chunk) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0) return std::nullopt;  // zero ends a key
    at ^= byte;
    if (at >= units_.size() || label_of(units_[at]) != byte) return std::nullopt;
    const std::uint32_t unit = units_[at];
    at ^= offset_of(unit);
    if (!has_leaf(unit)) continue;
    if (at >= units_.size()) return std::nullopt;
    const std::uint32_t begin = value_of(units_[at]);
    if (begin >= replacements_.size()) return std::nullopt;
    return std::string_view(replacements_.c_str() + begin);
  }
  return std::nullopt;
}

std::string Charsmap::apply(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::string_view cluster = text.substr(0, cluster_length(text));
    text.remove_prefix(cluster.size());
    if (cluster.size() < kWholeClusterBytes) {
      if (const auto found = replacement(cluster)) {
        out += *found;
        continue;
      }
    }
    for (std::string_view rest = cluster; !rest.empty();) {
      const std::string_view character = rest.substr(0, utf8_length(rest));
      rest.remove_prefix(character.size());
      out += replacement(character).value_or(character);
    }
  }
  return out;
}

}  // namespace skein
