#include "skein/io/temporary_folder.h"

#include <gtest/gtest.h>

#include "skein/io/env.h"
#include "skein/io/test_bytes.h"

namespace skein {
namespace {

TEST(TemporaryFolder, GoesWithItsOwnerAndAllItHolds) {
  std::string path;
  {
    const TemporaryFolder folder("skein-test"), other("skein-test");
    path = folder.path();
    EXPECT_NE(path, other.path());
    or_throw(real_env().make_folders(folder / "inner"));
    testing::put_file(real_env(), folder / "inner/file", "x");
    EXPECT_TRUE(real_env().exists(folder / "inner/file"));
  }
  EXPECT_FALSE(real_env().exists(path));
  EXPECT_THROW(TemporaryFolder("skein-test", "/nowhere"), Failure);
}

}  // namespace
}  // namespace skein
