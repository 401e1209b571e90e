#include "skein/cli/text_table.h"

#include <gtest/gtest.h>

#include <cmath>

namespace skein {
namespace {

TEST(TextTable, AlignsByDisplayWidthNotByBytes) {
  TextTable table({{"word", TextTable::Align::kLeft}, {"n"}});
  table.add_row({"日本", "7"});
  table.add_row({"ab", "1,234"});
  EXPECT_EQ(table.render(false), "word      n\n───────────\n日本      7\nab    1,234\n");
}

TEST(TextTable, MarksBoldCellsOnlyWhenStyled) {
  TextTable table({{"n"}});
  table.add_row({{"5", true}});
  EXPECT_EQ(table.render(true), "n\n─\n\x1b[1m5\x1b[0m\n");
  EXPECT_EQ(table.render(false), "n\n─\n5\n");
}

TEST(Shortened, CutsAtACharacterNotInsideOne) {
  EXPECT_EQ(shortened("äöüß", 4), "äöüß");
  EXPECT_EQ(shortened("äöüß", 3), "äö…");
  EXPECT_EQ(shortened("日本語", 4), "日…");
}

TEST(DisplayWidth, CountsAStrayByteAsOneColumn) { EXPECT_EQ(display_width("a\xff"), 2u); }

TEST(Numbers, AreGroupedByThousands) {
  EXPECT_EQ(grouped(0), "0");
  EXPECT_EQ(grouped(999), "999");
  EXPECT_EQ(grouped(1000), "1,000");
  EXPECT_EQ(grouped(-123456), "-123,456");
  EXPECT_EQ(fixed(0.6666, 3), "0.667");
  EXPECT_EQ(fixed(std::nan(""), 3), "-");
}

}  // namespace
}  // namespace skein
