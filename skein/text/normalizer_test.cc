#include "skein/text/normalizer.h"

#include <gtest/gtest.h>

#include "skein/text/base64.h"
#include "skein/text/charsmap.h"
#include "skein/text/golden_corpus.h"

namespace skein {
namespace {

std::string normalized(const Json& json, const std::string& text) {
  return or_throw(Normalizer::parse(json, "test")).apply(text);
}

TEST(Normalizer, KnowsTheFourForms) {
  const std::string text = "e\u0301 ﬁ Å 각";
  EXPECT_EQ(normalized({{"type", "NFC"}}, text), "é ﬁ Å 각");
  EXPECT_EQ(normalized({{"type", "NFD"}}, text), "e\u0301 ﬁ A\u030A \u1100\u1161\u11A8");
  EXPECT_EQ(normalized({{"type", "NFKC"}}, text), "é fi Å 각");
  EXPECT_EQ(normalized({{"type", "NFKD"}}, text), "e\u0301 fi A\u030A \u1100\u1161\u11A8");
}

TEST(Normalizer, DoesItsStepsInOrder) {
  const Json json = {{"type", "Sequence"},
                     {"normalizers",
                      {{{"type", "Prepend"}, {"prepend", "▁"}},
                       {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}},
                       {{"type", "Replace"}, {"pattern", {{"Regex", "b+"}}}, {"content", "c"}}}}};
  EXPECT_EQ(normalized(json, "a bb"), "▁a▁c");
  EXPECT_EQ(normalized(json, ""), "");  // nothing is put before nothing
}

TEST(Normalizer, StripsEitherEnd) {
  EXPECT_EQ(normalized({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}}, " \u3000a b\n"), "a b");
  EXPECT_EQ(normalized({{"type", "Strip"}, {"strip_left", false}, {"strip_right", true}}, " a "), " a");
}

TEST(Normalizer, RefusesWhatItDoesNotHaveByName) {
  const auto found = Normalizer::parse({{"type", "BertNormalizer"}}, "tokenizer.json");
  ASSERT_FALSE(found.ok());
  EXPECT_NE(found.error().message.find("BertNormalizer"), std::string::npos);
}

TEST(Charsmap, RefusesLengthsThatLie) {
  EXPECT_FALSE(Charsmap::parse("", "test").ok());
  EXPECT_FALSE(Charsmap::parse("\x08\0\0\0abc", "test").ok());
  EXPECT_FALSE(Charsmap::parse(std::string("\xFF\xFF\xFF\xFF", 4) + std::string(64, 'x'), "test").ok());
  EXPECT_FALSE(Normalizer::parse({{"type", "Precompiled"}, {"precompiled_charsmap", "!!"}}, "test").ok());
}

// The table's offsets come from the file: whatever they are, look-ups stay inside.
TEST(Charsmap, StaysInsideDamagedTables) {
  const Json json = or_throw(parse_json(tiny_tokenizers().at("unigram_t5").json, "test"));
  const std::string bytes = *decode_base64(json["normalizer"]["precompiled_charsmap"].get<std::string>());
  std::uint32_t state = 1;
  const auto random = [&] { return state = state * 1664525 + 1013904223; };
  int changed = 0;
  for (int round = 0; round < 50; ++round) {
    std::string damaged = bytes;
    for (int i = 0; i < 20000; ++i)
      damaged[4 + (random() >> 8) % (damaged.size() - 4)] = static_cast<char>(random() >> 24);
    const Charsmap map = or_throw(Charsmap::parse(damaged, "test"));
    for (std::size_t line = 0; line < golden_corpus().size(); line += 40) {
      changed += map.apply(golden_corpus()[line]) != golden_corpus()[line];
    }
  }
  EXPECT_GT(changed, 0);
}

TEST(Base64, ReadsWhatRfc4648Shows) {
  EXPECT_EQ(decode_base64(""), "");
  EXPECT_EQ(decode_base64("Zg=="), "f");
  EXPECT_EQ(decode_base64("Zm8="), "fo");
  EXPECT_EQ(decode_base64("Zm9vYmFy"), "foobar");
  EXPECT_EQ(decode_base64("Zm9vY"), std::nullopt);
  EXPECT_EQ(decode_base64("Zm9*"), std::nullopt);
}

}  // namespace
}  // namespace skein
