#include "skein/serve/adapter_staging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "skein/io/env.h"
#include "skein/io/temporary_folder.h"

namespace skein {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class StageAdapter : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(allowed() + "/good/gates");
    put("allowed/good/adapter_config.json", "{}");
    put("allowed/good/adapter_model.safetensors", "tensors");
    put("allowed/good/adapter_model.bin", "pickle");
    put("allowed/good/modeling_adapter.py", "code");
    put("allowed/good/gates/phatgoose.safetensors", "gates");
    put("secret/adapter_config.json", "secret");
  }

  std::string allowed() const { return root_ + "/allowed"; }
  std::string staging() const { return root_ + "/staging"; }
  void put(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(root_ + "/" + path).parent_path());
    std::ofstream(root_ + "/" + path) << text;
  }
  std::string refusal(const std::string& asked, const StagingLimits& limits = {}) {
    fs::remove_all(staging());
    const Status staged = stage_adapter(allowed(), asked, staging(), limits);
    return staged.ok() ? "accepted" : staged.error().message;
  }

  const TemporaryFolder folder_;
  const std::string root_ = folder_.path();
};

TEST_F(StageAdapter, CopiesTheFilesOfAnAdapterAndNoPickle) {
  ASSERT_EQ(refusal("good"), "accepted");
  EXPECT_TRUE(fs::exists(staging() + "/adapter_config.json"));
  EXPECT_TRUE(fs::exists(staging() + "/adapter_model.safetensors"));
  EXPECT_TRUE(fs::exists(staging() + "/gates/phatgoose.safetensors"));
  EXPECT_FALSE(fs::exists(staging() + "/adapter_model.bin"));
  EXPECT_FALSE(fs::exists(staging() + "/modeling_adapter.py"));
  EXPECT_EQ(refusal(allowed() + "/good"), "accepted");
}

TEST_F(StageAdapter, LeavesTheFolderByNoName) {
  for (const std::string& path :
       {std::string("../secret"), std::string("good/../../secret"), root_ + "/secret", allowed() + "/../secret",
        std::string("/etc"), std::string("."), std::string(""), std::string("/"), allowed(), allowed() + "x/good",
        std::string("good\0/../secret", 15), std::string("..\\secret"), std::string("-rf"), std::string("a\nb"),
        std::string(10'000, 'a'), std::string("missing"), std::string("%2e%2e/secret")}) {
    EXPECT_NE(refusal(path), "accepted") << path;
    EXPECT_FALSE(fs::exists(staging() + "/adapter_config.json")) << path;
  }
}

TEST_F(StageAdapter, FollowsNoLink) {
  fs::create_directory_symlink(root_ + "/secret", allowed() + "/link");
  EXPECT_THAT(refusal("link"), HasSubstr("symbolic link"));
  fs::create_directories(allowed() + "/inner");
  fs::create_symlink(root_ + "/secret/adapter_config.json", allowed() + "/inner/adapter_config.json");
  EXPECT_THAT(refusal("inner"), HasSubstr("symbolic link"));
  fs::create_directories(allowed() + "/gated");
  fs::create_directory_symlink(root_ + "/secret", allowed() + "/gated/gates");
  EXPECT_THAT(refusal("gated"), HasSubstr("symbolic link"));
}

TEST_F(StageAdapter, ReadsPlainFilesOnlyAndNoLargerOnesThanAllowed) {
  fs::create_directories(allowed() + "/pipe");
  ASSERT_EQ(mkfifo((allowed() + "/pipe/adapter_config.json").c_str(), 0600), 0);
  EXPECT_THAT(refusal("pipe"), HasSubstr("no plain file"));
  // 2 bytes of configuration, 7 of tensors, 5 of gates.
  EXPECT_EQ(refusal("good", {.max_bytes = 14}), "accepted");
  EXPECT_THAT(refusal("good", {.max_bytes = 13}), HasSubstr("'phatgoose.safetensors' has 5 bytes; 4 are left"));
  EXPECT_THAT(refusal("good", {.max_gates = 0}), HasSubstr("more than 0 files"));
}

}  // namespace
}  // namespace skein
