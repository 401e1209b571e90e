#include <gtest/gtest.h>

#include "skein/text/golden_corpus.h"

namespace skein {
namespace {

// The library alone knows no special tokens in text and adds none.
constexpr EncodeOptions kPlain{.add_special = false, .parse_special = false};

std::unique_ptr<Tokenizer> load(const std::string& name, const std::string& config) {
  const auto file = or_throw(real_env().map(golden_path(name)));
  return or_throw(tokenizer_from_sentencepiece(file->bytes(), config, name));
}

TEST(SentencePieceTokenizer, GivesTheIdsOfSentencePieceForBpe) {
  const auto tokenizer = load("sp_bpe.model", "");
  expect_golden_ids(*tokenizer, "sp_bpe", kPlain);
}

TEST(SentencePieceTokenizer, GivesTheIdsOfSentencePieceForUnigram) {
  const auto tokenizer = load("sp_unigram.model", "");
  expect_golden_ids(*tokenizer, "sp_unigram", kPlain);
}

}  // namespace
}  // namespace skein
