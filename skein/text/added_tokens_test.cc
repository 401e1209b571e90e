#include "skein/text/added_tokens.h"

#include <gtest/gtest.h>

#include "skein/base/concat.h"

namespace skein {
namespace {

// "text|<id>" of each segment, joined by spaces.
std::string show(const AddedTokens& tokens, std::string_view text, bool parse_special = true) {
  std::string out;
  for (const auto& segment : tokens.split(text, parse_special)) {
    out += concat(out.empty() ? "" : " ", "[", segment.text, "]");
    if (segment.id >= 0) out += std::to_string(segment.id);
  }
  return out;
}

TEST(AddedTokens, TakesTheLongestAtTheLeftmostPlace) {
  AddedTokens tokens;
  tokens.add({.id = 1, .content = "<a>"});
  tokens.add({.id = 2, .content = "<a><b>"});
  tokens.add({.id = 3, .content = "b>x"});
  EXPECT_EQ(show(tokens, "x<a><a><b>x"), "[x] [<a>]1 [<a><b>]2 [x]");
  EXPECT_EQ(show(tokens, "<b>x"), "[<] [b>x]3");
  EXPECT_EQ(show(tokens, ""), "");
  EXPECT_EQ(show(tokens, "<a"), "[<a]");
}

TEST(AddedTokens, LeavesSpecialOnesInTheTextWhenAsked) {
  AddedTokens tokens;
  tokens.add({.id = 1, .content = "<s>", .special = true});
  tokens.add({.id = 2, .content = "\n\n"});
  EXPECT_EQ(show(tokens, "a<s>\n\nb", false), "[a<s>] [\n\n]2 [b]");
}

TEST(AddedTokens, TakesWhiteSpaceAlongWhereTheirFlagsSaySo) {
  AddedTokens tokens;
  tokens.add({.id = 1, .content = "<l>", .lstrip = true});
  tokens.add({.id = 2, .content = "<r>", .rstrip = true});
  EXPECT_EQ(show(tokens, "a \u3000<l> b"), "[a] [ \u3000<l>]1 [ b]");
  EXPECT_EQ(show(tokens, "a <r>\n b"), "[a ] [<r>\n ]2 [b]");
  EXPECT_EQ(show(tokens, "<r>  <l>"), "[<r>  ]2 [<l>]1");
}

TEST(AddedTokens, MatchesWholeWordsOnlyWhereTheirFlagSaysSo) {
  AddedTokens tokens;
  tokens.add({.id = 1, .content = "the", .single_word = true});
  EXPECT_EQ(show(tokens, "the other, the_ éthe (the)"), "[the]1 [ other, the_ éthe (] [the]1 [)]");
}

// Twice the text, about twice the time would be a flaky test; a text that a quadratic search cannot finish is not.
TEST(AddedTokens, StaysLinearOnLongTexts) {
  AddedTokens tokens;
  for (int n = 2; n < 32; ++n) tokens.add({.id = n, .content = std::string(n, '\n')});
  tokens.add({.id = 1, .content = "<|x|>", .lstrip = true});
  EXPECT_EQ(tokens.split(std::string(3'100'000, '\n'), true).size(), 100'000U);
  EXPECT_EQ(tokens.split(std::string(3'000'000, '<'), true).size(), 1U);
  std::string spaced;
  for (int i = 0; i < 200'000; ++i) spaced += " <|x|>";
  EXPECT_EQ(tokens.split(spaced, true).size(), 200'000U);
}

}  // namespace
}  // namespace skein
