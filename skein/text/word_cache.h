// A small memory of words and their ids, one per thread and shared by all tokenizers: most words of a text have been
// seen a moment ago. One slot per hash value, an entry per cache line; a new word takes its slot.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "skein/text/tokenizer.h"

namespace skein {

class WordCache {
 public:
  static WordCache& of_this_thread();

  // Appends the ids of a word of tokenizer `owner` if they are remembered.
  bool append(std::uint32_t owner, std::string_view word, std::vector<TokenId>& ids) const;
  // Remembers ids[first..] for the word, if both are short.
  void remember(std::uint32_t owner, std::string_view word, const std::vector<TokenId>& ids, std::size_t first);

 private:
  static constexpr std::size_t kSlots = 1 << 14;  // 1 MiB per thread
  static constexpr std::size_t kMaxBytes = 26;
  static constexpr std::size_t kMaxIds = 8;
  struct Entry {
    std::uint32_t owner = 0;  // 0: empty
    std::uint8_t num_bytes = 0, num_ids = 0;
    char bytes[kMaxBytes];
    TokenId ids[kMaxIds];
  };
  static_assert(sizeof(Entry) == 64);
  static std::size_t slot_of(std::uint32_t owner, std::string_view word);

  std::vector<Entry> entries_ = std::vector<Entry>(kSlots);
};

}  // namespace skein
