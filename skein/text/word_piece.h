// BERT's tokenizer (arXiv 1810.04805): text to ids between [CLS] and [SEP], for sentence encoders. One way only: words
// are lowered and stripped, so no text comes back.
//
// Thread-safety: const after loading.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "skein/base/result.h"
#include "skein/text/tokenizer.h"

namespace skein {

class WordPiece {
 public:
  // tokenizer.json with a BertNormalizer, a BertPreTokenizer and a WordPiece model; everything else is refused by name.
  static Result<WordPiece> from_json(const std::string& tokenizer_json, const std::string& name);

  // At most max_tokens ids, [CLS] and [SEP] included; the end of a longer text is lost. Bytes that are not UTF-8 are
  // left out. A special token in the text is plain characters.
  std::vector<TokenId> encode(std::string_view text, std::int64_t max_tokens) const;
  std::int64_t vocabulary_size() const { return vocabulary_size_; }

 private:
  std::vector<std::string> words(std::string_view text) const;
  void encode_word(const std::string& word, std::vector<TokenId>& ids) const;

  std::unordered_map<std::string, TokenId> ids_;
  std::int64_t vocabulary_size_ = 0;
  std::int64_t max_characters_ = 100;  // of a word; longer ones are unknown
  std::string prefix_ = "##";          // of a piece that continues a word
  bool cleans_ = true, spaces_chinese_ = true, strips_accents_ = true, lowers_ = true;
  TokenId unknown_ = 0, begin_ = 0, end_ = 0;
};

}  // namespace skein
