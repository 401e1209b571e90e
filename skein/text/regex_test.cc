#include "skein/text/regex.h"

#include <gtest/gtest.h>

#include <vector>

namespace skein {
namespace {

std::vector<std::string> matches(const std::string& pattern, std::string_view text) {
  const Regex regex = or_throw(Regex::compile(pattern, "test"));
  std::vector<std::string> found;
  Regex::Match match{};
  for (std::size_t from = 0; from <= text.size() && regex.find(text, from, match);
       from = match.end + (match.begin == match.end)) {
    found.emplace_back(text.substr(match.begin, match.end - match.begin));
  }
  return found;
}

using Strings = std::vector<std::string>;

TEST(Regex, KnowsUnicodesClasses) {
  EXPECT_EQ(matches("\\p{L}+", "äß-日本_é1"), (Strings{"äß", "日本", "é"}));
  EXPECT_EQ(matches("\\p{N}", "1٣½Ⅷx"), (Strings{"1", "٣", "½", "Ⅷ"}));
  EXPECT_EQ(matches("(?i:'S)", "'s'S'\u017F"), (Strings{"'s", "'S", "'\u017F"}));  // long s folds to s
}

// U+180E is \s to PCRE2 and not to Oniguruma; U+0085 is white space to both; U+001C to neither.
TEST(Regex, TakesWhiteSpaceAsOnigurumaDoes) {
  EXPECT_EQ(matches("\\s", "a\u180E\u0085\u00A0\u3000\x1C\u200B b"), (Strings{"\u0085", "\u00A0", "\u3000", " "}));
  EXPECT_EQ(matches("[^\\s]+", "a\u180E b"), (Strings{"a\u180E", "b"}));
  EXPECT_EQ(matches("\\S+", "a\u3000b"), (Strings{"a", "b"}));
}

TEST(Regex, TakesWordCharactersAsOnigurumaDoes) {
  EXPECT_EQ(matches("\\w+", "e\u0301_x‿y½-z"), (Strings{"e\u0301_x‿y", "z"}));  // marks and connectors, no fractions
  EXPECT_EQ(matches("\\W", "a½"), (Strings{"½"}));
}

TEST(Regex, RefusesWhatItWouldMatchDifferently) {
  for (const char* const pattern : {"[a[bc]]", "[a&&b]", "[\\W]", "\\h", "(", "a{2,1}", "[z-a]", "\\p{Nope}"}) {
    EXPECT_FALSE(Regex::compile(pattern, "test").ok()) << pattern;
  }
  EXPECT_TRUE(Regex::compile("[[:alpha:]\\[\\]]", "test").ok());
}

TEST(Regex, GivesUpOnCatastrophicPatternsInsteadOfHanging) {
  const Regex regex = or_throw(Regex::compile("(a+a+)+$|(?:a*)*b", "test"));
  Regex::Match match{};
  EXPECT_THROW(regex.find(std::string(200, 'a') + "c", 0, match), Failure);
}

TEST(Regex, QuotesTextLiterally) {
  const std::string text = "a.b*[c]\\(d)|{e}^$+?#- ";
  EXPECT_EQ(matches(Regex::quote(text), "x" + text + "y"), (Strings{text}));
}

}  // namespace
}  // namespace skein
