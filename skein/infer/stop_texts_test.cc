#include "skein/infer/stop_texts.h"

#include <gtest/gtest.h>

namespace skein {
namespace {

TEST(StopTexts, GiveEverythingAtOnceWhereThereAreNone) {
  StopTexts stops({""});
  EXPECT_EQ(stops.push("abc"), "abc");
  EXPECT_EQ(stops.finish(), "");
}

TEST(StopTexts, HoldBackWhatMayBecomeAStop) {
  StopTexts stops({"\n\nQ:"});
  EXPECT_EQ(stops.push("yes\n"), "yes");
  EXPECT_EQ(stops.push("\n"), "");
  EXPECT_EQ(stops.push("Also"), "\n\nAlso");
  EXPECT_EQ(stops.push("\n\nQ"), "");
  EXPECT_FALSE(stops.stopped());
  EXPECT_EQ(stops.push(": more"), "");
  EXPECT_TRUE(stops.stopped());
  EXPECT_EQ(stops.push("x"), "");
}

TEST(StopTexts, StopAtTheFirstOfSeveral) {
  StopTexts stops({"end", "b"});
  EXPECT_EQ(stops.push("a b end"), "a ");
  EXPECT_TRUE(stops.stopped());
  EXPECT_EQ(stops.matched(), "b");
}

TEST(StopTexts, FindAStopThatOverlapsItsOwnBeginning) {
  StopTexts stops({"aab"});
  EXPECT_EQ(stops.push("aa"), "");
  EXPECT_EQ(stops.push("a"), "a");
  EXPECT_EQ(stops.push("b"), "");
  EXPECT_TRUE(stops.stopped());
}

TEST(StopTexts, GiveBackWhatNeverBecameAStop) {
  StopTexts stops({"stop"});
  EXPECT_EQ(stops.push("a st"), "a ");
  EXPECT_EQ(stops.finish(), "st");
}

}  // namespace
}  // namespace skein
