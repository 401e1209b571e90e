// The smallest words: element types and strings for messages.
#include <gtest/gtest.h>

#include "skein/base/concat.h"
#include "skein/base/dtype.h"

namespace skein {
namespace {

TEST(DType, NamesAndNumbersAgreeForEveryType) {
  for (int i = 0; i <= static_cast<int>(DType::kBool); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_from_name(dtype_name(dtype)), dtype);
    EXPECT_GT(dtype_size(dtype), 0);
  }
  EXPECT_EQ(dtype_from_name("F4"), std::nullopt);
}

TEST(Concat, JoinsStringsAndNumbers) { EXPECT_EQ(concat("row ", 3, " of ", std::string("x")), "row 3 of x"); }

TEST(Printable, EscapesControlCharactersAndCutsLongText) {
  EXPECT_EQ(printable("a\nb\x1b[31m"), "a\\x0ab\\x1b[31m");
  EXPECT_EQ(printable(std::string(200, 'x')), std::string(120, 'x') + "...");
}

}  // namespace
}  // namespace skein
