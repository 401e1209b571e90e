#include "skein/base/shape.h"

#include <gtest/gtest.h>

#include <limits>

namespace skein {
namespace {

constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();

TEST(CheckedNumel, MultipliesDimensions) {
  EXPECT_EQ(checked_numel({}), 1);
  EXPECT_EQ(checked_numel({3}), 3);
  EXPECT_EQ(checked_numel({3, 4, 5}), 60);
}

TEST(CheckedNumel, RefusesNegativeDimensions) { EXPECT_EQ(checked_numel({3, -1}), std::nullopt); }

TEST(CheckedNumel, RefusesProductsThatOverflow) {
  EXPECT_EQ(checked_numel({1LL << 32, 1LL << 31}), std::nullopt);
  EXPECT_EQ(checked_numel({kLargest, 1}), kLargest);
}

TEST(CheckedNumel, ChecksTheOtherDimensionsOfAnEmptyTensorToo) {
  EXPECT_EQ(checked_numel({0, 5}), 0);
  EXPECT_EQ(checked_numel({0, -5}), std::nullopt);
  EXPECT_EQ(checked_numel({1LL << 40, 0, 1LL << 40}), std::nullopt);
}

TEST(CheckedMul, RefusesNegativeFactorsAndOverflow) {
  EXPECT_EQ(checked_mul(6, 7), 42);
  EXPECT_EQ(checked_mul(-1, 7), std::nullopt);
  EXPECT_EQ(checked_mul(kLargest, 2), std::nullopt);
}

TEST(ShapeText, ReadsAsATuple) {
  EXPECT_EQ(to_string(Shape{576, 192}), "(576, 192)");
  EXPECT_EQ(to_string(Shape{}), "()");
}

}  // namespace
}  // namespace skein
