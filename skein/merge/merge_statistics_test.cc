#include "skein/merge/merge_statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/merge/run_merge.h"
#include "skein/merge/test_models.h"

namespace skein::merge {
namespace {

// A model of one tensor with these values.
void write_values(Env& env, const std::string& folder, const std::vector<float>& values) {
  or_throw(env.make_folders(folder));
  const auto bytes = std::as_bytes(std::span(values));
  or_throw(write_safetensors(
      env, folder + "/model.safetensors",
      {{"model.layers.0.w.weight", TensorView{DType::kF32, {static_cast<std::int64_t>(values.size())}, bytes}}}));
  or_throw(write_text_atomically(env, folder + "/config.json", "{}"));
}

TEST(MergeStatistics, AreWhatOneCountsByHand) {
  const auto env = make_memory_env();
  write_values(*env, "base", {1, 1, 1, 1});
  write_values(*env, "a", {2, 1, 3, 1});    // task vector 1 0 2 0
  write_values(*env, "b", {0, 1, 2, 1.5});  // task vector -1 0 1 0.5
  or_throw(write_text_atomically(
      *env, "r.yml",
      "merge_method: task_arithmetic\nbase_model: base\nmodels:\n- {model: a, parameters: {weight: 1}}\n"
      "- {model: b, parameters: {weight: 1}}\n"));
  MergeRequest request;
  request.recipe_path = "r.yml";
  request.out = "out";
  request.statistics_page = [](const Json& statistics) { return "page of " + statistics["method"].get<std::string>(); };
  const auto comm = make_single_comm();
  const auto merged = run_merge(*env, *comm, request);
  ASSERT_TRUE(merged.ok()) << merged.error().message;
  const Json statistics = or_throw(read_json_file(*env, "out/merge_stats.json"));
  EXPECT_EQ(statistics["models"], Json::array({"a", "b"}));
  const Json& tensor = statistics["tensors"][0];
  EXPECT_DOUBLE_EQ(tensor["norms"][0], std::sqrt(5.0));
  EXPECT_DOUBLE_EQ(tensor["norms"][1], 1.5);
  EXPECT_DOUBLE_EQ(tensor["cosines"][0], (-1.0 + 2.0) / (std::sqrt(5.0) * 1.5));
  EXPECT_DOUBLE_EQ(tensor["sign_conflicts"], 0.5) << "one of the two elements that both change";
  EXPECT_DOUBLE_EQ(tensor["kept"], 0.5) << "0 of the sums 0 0 3 0.5 is no change";
  EXPECT_DOUBLE_EQ(tensor["nonzero"][1], 0.75);
  EXPECT_EQ(statistics["layers"].size(), 1u);
  EXPECT_EQ(statistics["whole"]["cosines"], tensor["cosines"]);
  EXPECT_EQ(or_throw(read_text_file(*env, "out/merge_stats.html")), "page of task_arithmetic");
}

}  // namespace
}  // namespace skein::merge
