// One word to token ids: the "model" of a tokenizer.
//
// Thread-safety: const after loading, may be shared.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "skein/text/tokenizer.h"
#include "skein/text/vocabulary.h"

namespace skein {

class WordModel {
 public:
  virtual ~WordModel() = default;
  // Appends the ids of a word: a piece that the pre-tokenizer cut out, never empty, or a run of bytes that are not
  // UTF-8.
  virtual void encode(std::string_view word, std::vector<TokenId>& ids) const = 0;
};

// The ids of "<0x00>" to "<0xFF>", for characters that a vocabulary lacks.
class ByteFallback {
 public:
  explicit ByteFallback(const Vocabulary& vocabulary);
  bool complete() const { return complete_; }
  TokenId id(char byte) const { return ids_[static_cast<unsigned char>(byte)]; }
  // "<0x0A>" is the byte 10; -1: not such a spelling.
  static int byte_of(std::string_view token);

 private:
  TokenId ids_[256];
  bool complete_ = true;
};

}  // namespace skein
