// The tokenizer that tokenizer.json describes, and that a GGUF's vocabulary is read as: added tokens are cut out, the
// rest is normalised, cut into words, and each word goes through the model.
//
// Thread-safety: const after construction, may be shared.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "skein/text/added_tokens.h"
#include "skein/text/normalizer.h"
#include "skein/text/pre_tokenizer.h"
#include "skein/text/vocabulary.h"
#include "skein/text/word_model.h"

namespace skein {

// How tokens spell text.
enum class TokenSpelling {
  kByteLevel,  // GPT-2's byte alphabet
  kMetaspace,  // "▁" is a space, "<0x0A>" a byte
};

struct TokenizerParts {
  std::unique_ptr<Vocabulary> vocabulary;  // the model borrows it
  std::vector<AddedToken> added;           // spelled as they stand in text
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::shared_ptr<const WordModel> model;
  TokenSpelling spelling = TokenSpelling::kByteLevel;
  bool strips_leading_space = false;    // decode drops one space that encode put before the text
  std::vector<TokenId> prefix, suffix;  // add_special
  SpecialTokens special;
  std::optional<std::string> chat_template;
};

class PipelineTokenizer : public Tokenizer {
 public:
  explicit PipelineTokenizer(TokenizerParts parts);

  using Tokenizer::encode;
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options) const override;
  std::string decode(std::span<const TokenId> ids, bool skip_special) const override;
  std::string_view token(TokenId id) const override;
  std::string piece(TokenId id) const override;
  bool strips_leading_space() const override { return parts_.strips_leading_space; }
  bool is_special(TokenId id) const override;
  std::int64_t vocabulary_size() const override { return parts_.vocabulary->size(); }
  const SpecialTokens& special() const override { return parts_.special; }
  const std::optional<std::string>& chat_template() const override { return parts_.chat_template; }

 private:
  void encode_text(std::string_view text, bool at_start, bool parse_special, std::vector<TokenId>& ids) const;
  void encode_normal(std::string_view text, bool at_start, bool parse_special, std::vector<TokenId>& ids) const;
  void encode_words(std::string_view text, bool at_start, std::vector<TokenId>& ids) const;

  TokenizerParts parts_;
  AddedTokens given_, normal_;  // added tokens to look for in the text as given, and once normalised
  FlatMap<std::int32_t> added_of_id_;
  std::uint32_t serial_;  // names this tokenizer in the word cache
};

}  // namespace skein
