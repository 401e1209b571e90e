#include "skein/dist/comm.h"

#include <gtest/gtest.h>

namespace skein {
namespace {

TEST(SingleComm, IsRankZeroOfOneAndLeavesValuesAsTheyAre) {
  const auto comm = make_single_comm();
  EXPECT_EQ(comm->rank(), 0);
  EXPECT_EQ(comm->size(), 1);
  double values[] = {1.5, -2};
  comm->all_reduce_sum(std::span<double>(values));
  EXPECT_EQ(values[1], -2);
  const std::string text = "part";
  const auto parts = comm->gather(std::as_bytes(std::span(text)), 0);
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].size(), 4u);
  EXPECT_EQ(broadcast_text(*comm, "same", 0), "same");
}

TEST(Agree, PassesTheOnlyRanksErrorOn) {
  const auto comm = make_single_comm();
  EXPECT_TRUE(agree(*comm, {}).ok());
  const Status failed = agree(*comm, Error{"no room", ErrorKind::kDifference});
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().message, "no room");
  EXPECT_EQ(failed.error().kind, ErrorKind::kDifference);
}

TEST(MakeComm, IsASingleProcessWhenNoLauncherStartedIt) {
  const auto comm = make_comm();
  ASSERT_TRUE(comm.ok());
  EXPECT_EQ((*comm)->size(), 1);
}

}  // namespace
}  // namespace skein
