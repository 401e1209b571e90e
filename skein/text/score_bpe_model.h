// SentencePiece's byte-pair encoding: no list of merges, but two neighbours may merge when their text is a token, the
// one of highest score first (sentencepiece, src/bpe_model.cc; llama.cpp: llm_tokenizer_spm).
#pragma once

#include <cstdint>
#include <vector>

#include "skein/text/word_model.h"

namespace skein {

class ScoreBpeModel : public WordModel {
 public:
  // scores[id] orders the merges; mergeable[id]: whether plain text may become this token (control tokens may not).
  // vocabulary is borrowed for this object's life. unk: for bytes that have no byte token either.
  ScoreBpeModel(const Vocabulary& vocabulary, const std::vector<float>& scores, std::vector<bool> mergeable,
                TokenId unk);
  void encode(std::string_view word, std::vector<TokenId>& ids) const override;

 private:
  TokenId find(std::string_view token) const;  // -1: none

  const Vocabulary& vocabulary_;
  std::vector<std::uint32_t> ranks_;  // of an id: lower merges first
  std::vector<bool> mergeable_;
  ByteFallback fallback_;
  TokenId unk_;
};

}  // namespace skein
