#include "skein/cli/train_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace skein {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(TrainPage, HoldsTheLinesOfTheLog) {
  const std::string page = train_page("news", "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":1.25}\nhalf a li");
  EXPECT_THAT(page, HasSubstr("\"loss\":1.25"));
  EXPECT_THAT(page, HasSubstr("\"name\":\"news\""));
  EXPECT_THAT(page, Not(HasSubstr("SKEIN_TRAIN_DATA")));
  EXPECT_THAT(page, Not(HasSubstr("half a li")));
}

TEST(TrainPage, ANameCannotEndTheScript) {
  EXPECT_THAT(train_page("</script><b>", ""), Not(HasSubstr("</script><b>")));
}

// At the top of a script `const top` is a syntax error: the window has a `top` already.
TEST(TrainPage, ItsNamesAreInAScopeOfTheirOwn) {
  EXPECT_THAT(train_page("news", ""), HasSubstr("\"use strict\";\n{"));
}

TEST(TrainPage, AsksNothingOfTheNetwork) {
  const std::string page = train_page("news", "");
  for (const char* word : {"https://", "src=", "@import", "url("}) EXPECT_THAT(page, Not(HasSubstr(word)));
}

}  // namespace
}  // namespace skein
