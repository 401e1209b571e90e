// The tokens of a vocabulary as it spells them, by id and by spelling.
//
// Thread-safety: const after construction, may be shared.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "skein/text/tokenizer.h"

namespace skein {

// Ids a vocabulary may have: what a lie in a file can cost. The largest vocabularies in use have 262,144.
inline constexpr std::int64_t kMaxVocabulary = std::int64_t{1} << 22;

class Vocabulary {
 public:
  Vocabulary() : Vocabulary(std::vector<std::string>{}) {}
  // Token i has the id i. An empty string: nothing has that id. Of equal spellings the last id is found.
  explicit Vocabulary(std::vector<std::string> tokens);

  std::int64_t size() const { return static_cast<std::int64_t>(tokens_.size()); }
  bool contains(TokenId id) const { return id >= 0 && id < size(); }
  const std::string& operator[](TokenId id) const { return tokens_[id]; }  // requires contains(id)
  std::optional<TokenId> find(std::string_view token) const;

 private:
  struct Slot {
    std::uint32_t hash = 0;
    TokenId id = -1;
  };
  std::size_t slot_of(std::string_view token, std::uint32_t hash) const;

  std::vector<std::string> tokens_;
  std::vector<Slot> slots_;
};

}  // namespace skein
