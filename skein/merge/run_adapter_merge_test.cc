#include "skein/merge/run_adapter_merge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "skein/base/concat.h"
#include "skein/merge/manifest.h"

namespace skein::merge {
namespace {

using testing::HasSubstr;

const std::string kGolden = std::string(SKEIN_SOURCE_DIR) + "/tests/golden/merge/";

// skein merge of adapters in a folder of the test's own.
class RunAdapterMergeTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = (std::filesystem::temp_directory_path() / concat("skein_run_adapter_merge_", ::getpid())).string();
    or_throw(real_env().make_folders(folder_));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  MergeRequest request(const std::string& recipe) {
    or_throw(write_text_atomically(real_env(), folder_ + "/recipe.yml", recipe));
    MergeRequest request;
    request.recipe_path = folder_ + "/recipe.yml";
    request.out = out_;
    request.version = "test";
    return request;
  }
  Result<MergeSummary> merge(const MergeRequest& request) {
    const auto comm = make_single_comm();
    return run_merge(real_env(), *comm, request);
  }
  static std::string adapters(double weight = 0.5) {
    return concat("models:\n- {model: ", kGolden, "adapters/two, parameters: {weight: ", weight,
                  "}}\n- {model: ", kGolden, "adapters/three, parameters: {weight: 0.5}}\n");
  }

  std::string folder_;
  std::string out_ = (std::filesystem::temp_directory_path() / concat("skein_run_adapter_out_", ::getpid())).string();
};

TEST_F(RunAdapterMergeTest, VerifyFindsAChangedByteAndResumeMakesOnlyWhatIsNotThere) {
  auto own = request("merge_method: cat\n" + adapters());
  ASSERT_TRUE(merge(own).ok());
  EXPECT_THAT(or_throw(verify_output(real_env(), out_)).differences, testing::IsEmpty());
  own.resume = true;
  EXPECT_TRUE(or_throw(merge(own)).was_complete);
  auto other = request("merge_method: cat\n" + adapters(0.25));
  other.resume = true;
  EXPECT_FALSE(or_throw(merge(other)).was_complete) << "another recipe";
  const std::string weights = out_ + "/adapter_model.safetensors";
  std::string bytes = or_throw(read_text_file(real_env(), weights));
  bytes.back() ^= 1;
  or_throw(write_text_atomically(real_env(), weights, bytes));
  EXPECT_THAT(or_throw(verify_output(real_env(), out_)).differences,
              testing::ElementsAre(HasSubstr("adapter_model.safetensors holds other bytes")));
  std::filesystem::remove_all(out_);
}

TEST_F(RunAdapterMergeTest, AnAdapterMergedByAStageIsFoldedIntoTheNextStagesBase) {
  const std::string base = kGolden + "models/f32/base";
  const auto of = [&](const std::string& models) {
    return concat("merge_method: passthrough\nmodels: [{model: ", models, "}]\n");
  };
  const std::string stage = "name: both\nmerge_method: cat\n" + adapters() + "---\n";
  const auto staged = request(stage + of(base + "+both"));
  const auto planned = dry_run(real_env(), staged);
  ASSERT_TRUE(planned.ok()) << planned.error().message;
  EXPECT_EQ(planned->json["stages"][0]["adapters"].size(), 2u);
  EXPECT_EQ(planned->json["stages"][1]["models"].size(), 1u);
  EXPECT_FALSE(real_env().exists(out_));
  const auto summary = merge(staged);
  ASSERT_TRUE(summary.ok()) << summary.error().message;
  const std::string at_once = or_throw(read_text_file(real_env(), out_ + "/model.safetensors"));
  std::filesystem::remove_all(out_);
  // The same by hand: the adapter first, then the model.
  ASSERT_TRUE(merge(request("merge_method: cat\n" + adapters())).ok());
  const std::string adapter = folder_ + "/both";
  std::filesystem::rename(out_, adapter);
  ASSERT_TRUE(merge(request(of(base + "+" + adapter))).ok());
  EXPECT_TRUE(or_throw(read_text_file(real_env(), out_ + "/model.safetensors")) == at_once);
  std::filesystem::remove_all(out_);
}

}  // namespace
}  // namespace skein::merge
