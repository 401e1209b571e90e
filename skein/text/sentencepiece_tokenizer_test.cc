#include <gtest/gtest.h>

#include "skein/text/golden_corpus.h"

namespace skein {
namespace {

std::unique_ptr<Tokenizer> load(const std::string& name, const std::string& config) {
  const auto file = or_throw(real_env().map(golden_path(name)));
  return or_throw(tokenizer_from_sentencepiece(file->bytes(), config, name));
}

TEST(SentencePieceTokenizer, GivesTheIdsOfSentencePieceForBpe) {
  const auto tokenizer = load("sp_bpe.model", "{\"add_bos_token\":false}");
  expect_golden_ids(*tokenizer, "sp_bpe");
}

TEST(SentencePieceTokenizer, GivesTheIdsOfSentencePieceForUnigram) {
  const auto tokenizer = load("sp_unigram.model", "{\"add_eos_token\":false, \"tokenizer_class\":\"Other\"}");
  expect_golden_ids(*tokenizer, "sp_unigram");
}

}  // namespace
}  // namespace skein
