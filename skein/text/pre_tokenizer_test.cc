#include "skein/text/pre_tokenizer.h"

#include <gtest/gtest.h>

#include "skein/base/concat.h"

namespace skein {
namespace {

std::string pieces(const PreTokenizer& pre_tokenizer, const std::string& text) {
  SplitText split;
  split.reset(text, true);
  pre_tokenizer.apply(split);
  std::string out;
  for (const auto& span : split.spans) out += concat(out.empty() ? "" : "|", split.piece(span));
  return out;
}

std::string pieces(const Json& json, const std::string& text) {
  return pieces(or_throw(PreTokenizer::parse(json, "test")), text);
}

Json split_on_dash(const char* behavior, bool invert = false) {
  return {{"type", "Split"}, {"pattern", {{"String", "-"}}}, {"behavior", behavior}, {"invert", invert}};
}

// The example of the `tokenizers` library's own documentation of the behaviours.
TEST(PreTokenizer, TreatsDelimitersAsTheBehaviourSays) {
  const std::string text = "the-final--countdown";
  EXPECT_EQ(pieces(split_on_dash("Removed"), text), "the|final|countdown");
  EXPECT_EQ(pieces(split_on_dash("Isolated"), text), "the|-|final|-|-|countdown");
  EXPECT_EQ(pieces(split_on_dash("MergedWithPrevious"), text), "the-|final-|-|countdown");
  EXPECT_EQ(pieces(split_on_dash("MergedWithNext"), text), "the|-final|-|-countdown");
  EXPECT_EQ(pieces(split_on_dash("Contiguous"), text), "the|-|final|--|countdown");
  EXPECT_EQ(pieces(split_on_dash("Removed", true), text), "-|-|-");
}

TEST(PreTokenizer, CutsWordsAsGpt2) {
  const auto gpt2 = or_throw(PreTokenizer::isolating({kGpt2Pattern}, "test"));
  EXPECT_EQ(pieces(gpt2, "I'm  here, 42 times!\n\n x  "), "I|'m| | here|,| 42| times|!|\n\n| x|  ");
}

TEST(PreTokenizer, CutsSingleDigitsBeforeGpt2ForSmolLM) {
  const auto smollm = or_throw(PreTokenizer::isolating({"\\p{N}", kGpt2Pattern}, "test"));
  EXPECT_EQ(pieces(smollm, "in 2024 a"), "in| |2|0|2|4| a");
}

TEST(PreTokenizer, PutsSpacesBeforeWordsAsMetaspaceDoes) {
  const auto metaspace = [](const char* scheme, bool cut) -> Json {
    return {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", cut}};
  };
  EXPECT_EQ(pieces(metaspace("always", true), "a  bc"), "▁a|▁|▁bc");
  EXPECT_EQ(pieces(metaspace("always", true), " a"), "▁a");
  EXPECT_EQ(pieces(metaspace("never", true), "a b"), "a|▁b");
  EXPECT_EQ(pieces(metaspace("first", false), "a b"), "▁a▁b");
}

TEST(PreTokenizer, CutsAtEmptyMatchesToo) {
  const Json json = {{"type", "Split"}, {"pattern", {{"Regex", "(?=(\\d{3})+(?!\\d))"}}}, {"behavior", "Isolated"}};
  EXPECT_EQ(pieces(json, "x1234567"), "x1|234|567");
}

TEST(PreTokenizer, RefusesWhatItDoesNotHaveByName) {
  const auto found = PreTokenizer::parse({{"type", "BertPreTokenizer"}}, "tokenizer.json");
  ASSERT_FALSE(found.ok());
  EXPECT_NE(found.error().message.find("tokenizer.json: the pre-tokenizer \"BertPreTokenizer\""), std::string::npos);
  const Json after = {{"type", "Sequence"}, {"pretokenizers", {{{"type", "ByteLevel"}}, {{"type", "Digits"}}}}};
  EXPECT_FALSE(PreTokenizer::parse(after, "test").ok());
  EXPECT_FALSE(PreTokenizer::parse(split_on_dash("Nope"), "test").ok());
}

}  // namespace
}  // namespace skein
