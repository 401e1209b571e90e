// Tokens that are found in the text before any model sees it: "<|im_start|>", runs of newlines, ...
//
// At each place the longest token matches, leftmost first (as the `tokenizers` library does). Cost: bytes of the text
// times the length of the longest added token.
//
// Thread-safety: const after loading, may be shared.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "skein/text/byte_trie.h"
#include "skein/text/tokenizer.h"

namespace skein {

struct AddedToken {
  TokenId id = -1;
  std::string content;
  bool special = false;      // left out of the search when the text's special tokens are not to be parsed
  bool normalized = false;   // looked for in the normalised text; else in the text as given, before
  bool single_word = false;  // only where no word character stands beside it
  bool lstrip = false;       // takes the white space on its left, on its right, with it
  bool rstrip = false;
};

class AddedTokens {
 public:
  void add(AddedToken token);
  bool empty() const { return trie_.empty(); }

  struct Segment {
    TokenId id;             // -1: text
    std::string_view text;  // not empty
  };
  // Cuts a text into added tokens and the text between them.
  std::vector<Segment> split(std::string_view text, bool parse_special) const;

 private:
  std::vector<AddedToken> tokens_;
  ByteTrie trie_;  // numbers are places in tokens_
};

}  // namespace skein
