// Byte-pair encoding with a list of merges (Sennrich et al., arXiv 1508.07909; on bytes: GPT-2).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "skein/base/result.h"
#include "skein/text/flat_map.h"
#include "skein/text/merge_queue.h"
#include "skein/text/word_model.h"

namespace skein {

struct BpeOptions {
  bool byte_level = false;     // words are bytes, spelled in GPT-2's alphabet; else characters
  bool byte_fallback = false;  // a character that the vocabulary lacks is spelled "<0xE2><0x96>..."
  bool ignore_merges = false;  // a word that is a token is that token
  bool fuse_unk = false;       // neighbours that are both unknown are one unknown token
  std::optional<TokenId> unk;  // without: what the vocabulary lacks is left out
};

class BpeModel : public WordModel {
 public:
  // merges: pairs of tokens, first merged first. vocabulary is borrowed for this object's life.
  static Result<std::shared_ptr<const BpeModel>> make(const Vocabulary& vocabulary,
                                                      const std::vector<std::pair<std::string, std::string>>& merges,
                                                      const BpeOptions& options, const std::string& where);
  void encode(std::string_view word, std::vector<TokenId>& ids) const override;

 private:
  BpeModel(const Vocabulary& vocabulary, const BpeOptions& options, std::size_t num_merges);
  void add_bytes(std::string_view word, std::vector<MergeSymbol>& symbols) const;
  void add_characters(std::string_view word, std::vector<MergeSymbol>& symbols) const;
  void add_unknown(std::size_t begin, std::size_t length, std::vector<MergeSymbol>& symbols) const;

  const Vocabulary& vocabulary_;
  BpeOptions options_;
  FlatMap<MergeCandidate> merges_;  // key: left id << 32 | right id
  std::optional<ByteFallback> fallback_;
  TokenId byte_ids_[256];  // byte level: the token of each byte; -1: none
};

}  // namespace skein
