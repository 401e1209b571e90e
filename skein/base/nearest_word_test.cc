#include "skein/base/nearest_word.h"

#include <gtest/gtest.h>

namespace skein {
namespace {

TEST(EditDistance, CountsInsertionsDeletionsSubstitutionsAndSwaps) {
  EXPECT_EQ(edit_distance("generate", "generate"), 0);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("genrate", "generate"), 1);
  EXPECT_EQ(edit_distance("trian", "train"), 1) << "a swap of neighbours is one edit";
  EXPECT_EQ(edit_distance("eval", "trace"), 4);
}

TEST(NearestWord, FindsTheWordThatWasMeant) {
  EXPECT_EQ(nearest_word("genrate", {"eval", "generate", "trace"}), "generate");
  EXPECT_EQ(nearest_word("--promt", {"--prompt", "--prompt-file"}), "--prompt");
}

TEST(NearestWord, SaysNothingWhenNoWordIsNear) {
  EXPECT_EQ(nearest_word("quantize", {"eval", "generate", "trace"}), std::nullopt);
  EXPECT_EQ(nearest_word("x", {}), std::nullopt);
}

}  // namespace
}  // namespace skein
