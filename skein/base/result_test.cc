#include "skein/base/result.h"

#include <gtest/gtest.h>

#include <memory>

namespace skein {
namespace {

Result<int> half_of(int value) {
  if (value % 2 != 0) return Error{"odd", ErrorKind::kUsage};
  return value / 2;
}

Result<int> quarter_of(int value) {
  SKEIN_ASSIGN(const int half, half_of(value));
  SKEIN_ASSIGN(const int quarter, half_of(half));
  return quarter;
}

Status all_even(std::initializer_list<int> values) {
  for (const int value : values) SKEIN_TRY(half_of(value));
  return {};
}

TEST(Result, CarriesTheValueOrTheError) {
  EXPECT_EQ(*half_of(8), 4);
  EXPECT_EQ(half_of(7).error().message, "odd");
  EXPECT_EQ(half_of(7).error().kind, ErrorKind::kUsage);
}

TEST(Result, AssignLeavesWithTheFirstError) {
  EXPECT_EQ(*quarter_of(12), 3);
  EXPECT_FALSE(quarter_of(6).ok());
}

TEST(Result, TryStopsAtTheFirstError) {
  EXPECT_TRUE(all_even({2, 4}).ok());
  EXPECT_FALSE(all_even({2, 3, 4}).ok());
}

TEST(Result, MovesValuesThatCannotBeCopied) {
  Result<std::unique_ptr<int>> made = std::make_unique<int>(5);
  std::unique_ptr<int> taken = std::move(made).value();
  EXPECT_EQ(*taken, 5);
}

TEST(Result, OrThrowThrowsTheErrorAsAFailure) {
  EXPECT_EQ(or_throw(half_of(2)), 1);
  try {
    or_throw(half_of(1));
    FAIL() << "nothing was thrown";
  } catch (const Failure& failure) {
    EXPECT_STREQ(failure.what(), "odd");
    EXPECT_EQ(failure.error().kind, ErrorKind::kUsage);
  }
}

TEST(ResultDeathTest, AbortsWhenAFailedResultIsAskedForItsValue) {
  EXPECT_DEATH(half_of(1).value(), "internal error");
}

}  // namespace
}  // namespace skein
