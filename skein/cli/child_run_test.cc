#include "skein/cli/child_run.h"

#include <signal.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/base/median.h"

namespace skein {
namespace {

using testing::HasSubstr;

TEST(ChildRun, GivesWhatTheProgramWroteAndSetsItsEnvironment) {
  const auto run = or_throw(run_child({"sh", "-c", "printf '%s' \"$COLOUR\"; cat"}, {{"COLOUR", "teal"}}));
  EXPECT_EQ(run.out, "teal");
}

TEST(ChildRun, PeakMemoryIsTheChildsOwn) {
  // The parent holds more than the child: none of it may be counted.
  const std::vector<char> large(200 << 20, 1);
  const auto run = or_throw(run_child({"sh", "-c", "sleep 0.05"}));
  EXPECT_GT(run.peak_bytes, 100'000u);
  EXPECT_LT(run.peak_bytes, 100u << 20);
  EXPECT_GT(run.seconds, 0.04);
}

TEST(ChildRun, AFailureTellsCodeAndLastWords) {
  const auto run = run_child({"sh", "-c", "echo too late >&2; exit 7"});
  ASSERT_FALSE(run.ok());
  EXPECT_THAT(run.error().message, HasSubstr("exit code 7:\ntoo late"));
  EXPECT_THAT(run_child({"no-such-program-anywhere"}).error().message, HasSubstr("cannot run no-such-program"));
}

TEST(ChildRun, AChildThatGoesOnIsMeasuredAndStopped) {
  pid_t ended = 0;
  {
    RunningChild child({"sh", "-c", "echo $$ >&2; while :; do :; done"});
    while (child.last_words().find('\n') == std::string::npos) {
    }
    ended = std::stoi(child.last_words());
    EXPECT_TRUE(child.is_running());
    EXPECT_GT(child.resident_bytes(), 100'000u);
  }
  EXPECT_NE(kill(ended, 0), 0);
  RunningChild brief({"sh", "-c", "exit 3"});
  while (brief.is_running()) {
  }
  EXPECT_EQ(brief.resident_bytes(), 0u);
  EXPECT_THROW(RunningChild({"no-such-program-anywhere"}), Failure);
}

TEST(ChildRun, FindsProgramsOnThePath) {
  EXPECT_THAT(find_program("sh").value_or(""), testing::EndsWith("/sh"));
  EXPECT_EQ(find_program("no-such-program-anywhere"), std::nullopt);
}

TEST(ChildRun, MedianOfAnEvenNumberIsTheMiddle) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
}

}  // namespace
}  // namespace skein
