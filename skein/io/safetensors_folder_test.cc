// A model folder: one file, or shards behind an index.
#include "skein/io/safetensors.h"
#include "skein/io/test_bytes.h"

namespace skein {
namespace {

using testing::expect_error;
using testing::put_file;

const float kValues[2] = {1, 2};

void put_shard(Env& env, const std::string& path, const std::vector<std::string>& names) {
  std::vector<NamedTensor> tensors;
  for (const auto& name : names) tensors.push_back({name, {DType::kF32, {2}, std::as_bytes(std::span(kValues))}});
  or_throw(write_safetensors(env, path, tensors, {{"format", "pt"}}));
}

// "m/" with shards {a, b} and {c} and this index.
Result<std::unique_ptr<Checkpoint>> open_with_index(const std::string& index) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("m"));
  put_shard(*env, "m/1.safetensors", {"b", "a"});
  put_shard(*env, "m/2.safetensors", {"c"});
  put_shard(*env, "m/2b.safetensors", {"c"});
  put_shard(*env, "outside.safetensors", {"c"});
  put_file(*env, "m/model.safetensors.index.json", index);
  return open_safetensors_folder(*env, "m");
}

TEST(SafetensorsFolder, ReadsOneFile) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("m"));
  put_shard(*env, "m/model.safetensors", {"w"});
  EXPECT_EQ(or_throw(open_safetensors_folder(*env, "m"))->tensors().size(), 1u);
}

TEST(SafetensorsFolder, JoinsShards) {
  const auto checkpoint = or_throw(open_with_index(
      R"({"metadata": {"total_size": 24}, "weight_map": {"c": "2.safetensors", "a": "1.safetensors", "b": "1.safetensors"}})"));
  ASSERT_EQ(checkpoint->tensors().size(), 3u);
  for (const char* name : {"a", "b", "c"}) {
    float values[2];
    or_throw(checkpoint->read(name, DType::kF32, std::as_writable_bytes(std::span(values))));
    EXPECT_EQ(values[1], 2) << name;
  }
  EXPECT_EQ(checkpoint->metadata().size(), 1u);
  EXPECT_EQ(checkpoint->path(), "m");
}

TEST(SafetensorsFolder, KeepsTensorsThatTheIndexForgot) {
  EXPECT_NE(or_throw(open_with_index(R"({"weight_map": {"a": "1.safetensors"}})"))->find("b"), nullptr);
}

TEST(SafetensorsFolder, RejectsAShardOutsideTheFolder) {
  for (const char* path :
       {"../outside.safetensors", "/etc/passwd", "..", "sub/1.safetensors", "..\\\\outside.safetensors"}) {
    expect_error(open_with_index(std::string("{\"weight_map\": {\"c\": \"") + path + "\"}}"),
                 "the plain name of a file in the same folder was expected");
  }
}

TEST(SafetensorsFolder, RejectsAMissingShard) {
  expect_error(open_with_index(R"({"weight_map": {"a": "3.safetensors"}})"), "shard 3.safetensors is missing");
}

TEST(SafetensorsFolder, RejectsATensorThatIsNotInItsShard) {
  expect_error(open_with_index(R"({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})"),
               "tensor \"b\" is not in shard 2.safetensors");
  expect_error(open_with_index(R"({"weight_map": {"none": "1.safetensors"}})"),
               "tensor \"none\" is not in shard 1.safetensors");
}

TEST(SafetensorsFolder, RejectsATensorInTwoShards) {
  expect_error(
      open_with_index(R"({"weight_map": {"c": "2.safetensors", "a": "1.safetensors", "x": "2b.safetensors"}})"),
      "tensor \"c\" lies in two shards, 2.safetensors and 2b.safetensors");
}

TEST(SafetensorsFolder, RejectsATensorTwiceInTheIndex) {
  expect_error(open_with_index(R"({"weight_map": {"a": "1.safetensors", "a": "2.safetensors"}})"),
               "the key \"a\" stands twice");
}

TEST(SafetensorsFolder, RejectsAnIndexWithoutAMap) {
  for (const char* index : {"{}", "[]", R"({"weight_map": []})", R"({"weight_map": null})"}) {
    expect_error(open_with_index(index), "\"weight_map\" is missing or not an object");
  }
  expect_error(open_with_index(R"({"weight_map": {}})"), "\"weight_map\" is empty");
}

TEST(SafetensorsFolder, RejectsAShardThatIsNoName) {
  expect_error(open_with_index(R"({"weight_map": {"a": 1}})"),
               "the shard of \"a\" is number; a file name was expected");
}

TEST(SafetensorsFolder, SaysWhatIsMissing) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("m"));
  expect_error(open_safetensors_folder(*env, "m"),
               "m holds neither model.safetensors nor model.safetensors.index.json");
  put_file(*env, "m/pytorch_model.bin", "PK");
  expect_error(open_safetensors_folder(*env, "m"),
               "pytorch_model.bin is pickled: turn it into safetensors with `skein convert");
}

}  // namespace
}  // namespace skein
