#include "skein/text/utf8.h"

#include <gtest/gtest.h>

namespace skein {
namespace {

// Unicode table 3-7, written out: the slow twin of utf8_length.
int reference_length(std::string_view t) {
  const auto in = [&](std::size_t i, int low, int high) {
    return i < t.size() && static_cast<unsigned char>(t[i]) >= low && static_cast<unsigned char>(t[i]) <= high;
  };
  if (in(0, 0x00, 0x7F)) return 1;
  if (in(0, 0xC2, 0xDF) && in(1, 0x80, 0xBF)) return 2;
  if (in(0, 0xE0, 0xE0) && in(1, 0xA0, 0xBF) && in(2, 0x80, 0xBF)) return 3;
  if (in(0, 0xE1, 0xEC) && in(1, 0x80, 0xBF) && in(2, 0x80, 0xBF)) return 3;
  if (in(0, 0xED, 0xED) && in(1, 0x80, 0x9F) && in(2, 0x80, 0xBF)) return 3;
  if (in(0, 0xEE, 0xEF) && in(1, 0x80, 0xBF) && in(2, 0x80, 0xBF)) return 3;
  if (in(0, 0xF0, 0xF0) && in(1, 0x90, 0xBF) && in(2, 0x80, 0xBF) && in(3, 0x80, 0xBF)) return 4;
  if (in(0, 0xF1, 0xF3) && in(1, 0x80, 0xBF) && in(2, 0x80, 0xBF) && in(3, 0x80, 0xBF)) return 4;
  if (in(0, 0xF4, 0xF4) && in(1, 0x80, 0x8F) && in(2, 0x80, 0xBF) && in(3, 0x80, 0xBF)) return 4;
  return 0;
}

TEST(Utf8, AgreesWithTheTableOnAllFirstThreeBytes) {
  std::string text(4, '\x80');
  for (int a = 0; a < 256; ++a) {
    for (int b = 0; b < 256; ++b) {
      for (const int c : {0x00, 0x7F, 0x80, 0xBF, 0xC0, 0xFF}) {
        text[0] = static_cast<char>(a);
        text[1] = static_cast<char>(b);
        text[2] = static_cast<char>(c);
        ASSERT_EQ(utf8_length(text), reference_length(text)) << a << " " << b << " " << c;
        ASSERT_EQ(utf8_length(text.substr(0, 2)), reference_length(text.substr(0, 2))) << a << " " << b;
      }
    }
  }
}

TEST(Utf8, ReadsBackEveryCharacterItWrites) {
  for (char32_t c = 0; c <= 0x10FFFF; c += c < 0x3000 ? 1 : 97) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    append_utf8(c, text);
    ASSERT_EQ(utf8_length(text), static_cast<int>(text.size()));
    ASSERT_EQ(decode_utf8(text), c);
  }
}

TEST(Utf8, SplitsTextIntoValidAndInvalidRuns) {
  EXPECT_EQ(valid_utf8_prefix("plain ascii text\xFFx"), 16U);
  EXPECT_EQ(valid_utf8_prefix("é\xC3"), 2U);
  EXPECT_EQ(invalid_utf8_prefix("\xC3\xFF\x80 x"), 3U);
  EXPECT_EQ(invalid_utf8_prefix("é"), 0U);
}

TEST(Utf8, FindsTheStartOfACharacterThatIsNotOverYet) {
  const std::string emoji = "😀";
  for (std::size_t bytes = 1; bytes < 4; ++bytes) {
    EXPECT_EQ(incomplete_utf8_suffix("x" + emoji.substr(0, bytes)), bytes);
  }
  EXPECT_EQ(incomplete_utf8_suffix("x" + emoji), 0U);
  EXPECT_EQ(incomplete_utf8_suffix("\x80\x80"), 0U);  // no lead byte: can never become a character
  EXPECT_EQ(incomplete_utf8_suffix("\xE0\x80"), 0U);  // overlong whatever follows
  EXPECT_EQ(incomplete_utf8_suffix("\xF4\x90"), 0U);  // past U+10FFFF
  EXPECT_EQ(incomplete_utf8_suffix(""), 0U);
}

}  // namespace
}  // namespace skein
