// SentencePiece's unigram model (Kudo, arXiv 1804.10959, section 3.2): the tokens of a word are those whose scores
// (log-probabilities) have the highest sum, found by Viterbi's algorithm.
#pragma once

#include <vector>

#include "skein/text/byte_trie.h"
#include "skein/text/word_model.h"

namespace skein {

class UnigramModel : public WordModel {
 public:
  // scores[id] for each id of the vocabulary, which is borrowed for this object's life; ids from scores.size() on are
  // not part of the model. byte_fallback: an unknown character is spelled in byte tokens instead of unk.
  UnigramModel(const Vocabulary& vocabulary, std::vector<double> scores, TokenId unk, bool byte_fallback);
  void encode(std::string_view word, std::vector<TokenId>& ids) const override;

 private:
  std::vector<double> scores_;
  double unk_score_ = 0;
  TokenId unk_;
  ByteTrie trie_;
  ByteFallback fallback_;
  bool byte_fallback_;
};

}  // namespace skein
