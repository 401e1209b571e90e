// SentencePiece's compiled table of character replacements ("precompiled_charsmap"): four bytes of length, a double
// array trie (Darts) of that length, then the replacements, each ended by a zero byte.
//
// Used as the `tokenizers` library uses it: a grapheme cluster under six bytes is looked up as a whole, otherwise each
// of its characters, and the shortest entry that it starts with replaces it. (SentencePiece itself takes the longest
// entry at each place; .model files go through its own library.)
//
// Thread-safety: const, may be shared.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "skein/base/result.h"

namespace skein {

class Charsmap {
 public:
  // Checks lengths; every look-up stays inside the tables whatever they hold.
  static Result<Charsmap> parse(std::string_view bytes, const std::string& where);
  std::string apply(std::string_view text) const;  // text: well-formed UTF-8

 private:
  std::optional<std::string_view> replacement(std::string_view chunk) const;

  std::vector<std::uint32_t> units_;  // of the double array
  std::string replacements_;
};

}  // namespace skein
