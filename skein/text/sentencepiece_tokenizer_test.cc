#include <gtest/gtest.h>

#include <algorithm>

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

// T5's rule for a file without a config: an end token, and a hundred sentinels behind the vocabulary, the last first.
TEST(SentencePieceTokenizer, FollowsT5ForItsFiles) {
  const auto tokenizer = load("sp_unigram.model", "");
  EXPECT_EQ(tokenizer->vocabulary_size(), 800);
  EXPECT_EQ(tokenizer->token(799), "<extra_id_0>");
  EXPECT_EQ(tokenizer->token(700), "<extra_id_99>");
  EXPECT_FALSE(tokenizer->special().bos.has_value());
  EXPECT_EQ(tokenizer->special().pad, 0);
  EXPECT_EQ(tokenizer->special().eos, 1);
  EXPECT_EQ(tokenizer->special().end_of_generation, (std::vector<TokenId>{1}));
  auto ids = tokenizer->encode("the <extra_id_0> way");
  ASSERT_GE(ids.size(), 4U);
  EXPECT_EQ(ids.back(), 1);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 799), 1);
  EXPECT_EQ(tokenizer->encode("the", {.add_special = false}).back(), ids.front());
}

TEST(SentencePieceTokenizer, TakesSentinelsFromTheConfig) {
  EXPECT_EQ(load("sp_unigram.model", R"({"extra_ids": 3})")->vocabulary_size(), 703);
  const auto listed = load("sp_unigram.model", R"({"tokenizer_class":"T5Tokenizer","added_tokens_decoder":{
      "700":{"content":"<extra_id_0>","special":true},"701":{"content":"<new>","special":false}}})");
  EXPECT_EQ(listed->vocabulary_size(), 702);
  EXPECT_EQ(listed->encode("<new>", {.add_special = false, .parse_special = false}), (std::vector<TokenId>{701}));
  EXPECT_TRUE(listed->is_special(700));
  EXPECT_FALSE(listed->is_special(701));
}

TEST(SentencePieceTokenizer, AddsTheBeginningTokenAsLlamaDoes) {
  const auto tokenizer =
      load("sp_bpe.model", R"({"tokenizer_class":"LlamaTokenizer","bos_token":"<s>","eos_token":"</s>"})");
  EXPECT_EQ(tokenizer->encode("").front(), *tokenizer->special().bos);
  EXPECT_EQ(tokenizer->token(*tokenizer->special().bos), "<s>");
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("a b"), true), "a b");
  EXPECT_EQ(tokenizer->encode("</s>").back(), *tokenizer->special().eos);
}

TEST(SentencePieceTokenizer, GivesBackTheNormalisedText) {
  const auto tokenizer = load("sp_bpe.model", "");
  for (std::uint32_t seed = 0; seed < 3000; ++seed) {
    const std::string text = random_text(seed, false);
    std::string expected = text;  // this model's normalisation: "▁" is a space
    for (std::size_t at = 0; (at = expected.find("▁", at)) != std::string::npos;) expected.replace(at, 3, " ");
    ASSERT_EQ(tokenizer->decode(tokenizer->encode(text, kPlain), false), expected) << "seed " << seed;
  }
}

TEST(SentencePieceTokenizer, RefusesWhatIsNoModel) {
  const std::string garbage = "not a model";
  const auto tokenizer = tokenizer_from_sentencepiece(std::as_bytes(std::span(garbage)), "", "spiece.model");
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_NE(tokenizer.error().message.find("spiece.model: not a SentencePiece model"), std::string::npos);
}

TEST(SentencePieceTokenizer, RefusesAConfigOfAnotherModel) {
  const auto file = or_throw(real_env().map(golden_path("sp_bpe.model")));
  const auto tokenizer = tokenizer_from_sentencepiece(
      file->bytes(), R"({"added_tokens_decoder":{"500":{"content":"<not that>"}}})", "tokenizer.model");
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_NE(tokenizer.error().message.find("do not belong together"), std::string::npos);
}

}  // namespace
}  // namespace skein
