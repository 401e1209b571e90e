#include "skein/spec/gguf_export.h"

#include <gtest/gtest.h>

#include "skein/io/fault_env.h"
#include "skein/spec/tensor_names.h"
#include "skein/spec/tiny_base.h"

namespace skein {
namespace {

using testing::expect_error;
using testing::put_base_folder;
using testing::tiny_config;

Status write_all(Env& env, const std::string& path, const BaseModel& base, GgmlType type) {
  return write_gguf(env, path, base, type, {}, [](std::int64_t, const std::string&) { return true; });
}

void expect_same_weights(const BaseModel& base, const BaseModel& expected) {
  for (const TensorName& name : tensor_names(expected.config)) {
    if (name.role == TensorRole::kHead && expected.config.tied_embeddings) continue;
    std::vector<float> found(static_cast<std::size_t>(*checked_numel(name.shape))), wanted = found;
    or_throw(base.weights->read(name.name, DType::kF32, std::as_writable_bytes(std::span(found))));
    or_throw(expected.weights->read(name.name, DType::kF32, std::as_writable_bytes(std::span(wanted))));
    EXPECT_EQ(found, wanted) << name.name;
  }
}

// The tiny weights are multiples of 1/64 below 1: exact in bf16, and so are Gemma's norms around one.
TEST(WriteGguf, IsReadBackAsTheSameModelOfEveryDecoder) {
  for (const Family family : {Family::kLlama, Family::kQwen2, Family::kQwen3, Family::kGemma3}) {
    const BackboneConfig config = tiny_config(family);
    const auto env = make_memory_env();
    put_base_folder(*env, "base", config);
    const BaseModel base = or_throw(open_base_model(*env, "base"));
    for (const GgmlType type : {GgmlType::kF32, GgmlType::kBF16}) {
      or_throw(write_all(*env, "m.gguf", base, type));
      const BaseModel back = or_throw(open_base_model(*env, "m.gguf"));
      EXPECT_EQ(config_to_json(back.config, "float32").erase("eos_token_id"),
                config_to_json(base.config, "float32").erase("eos_token_id"))
          << family_name(family);
      expect_same_weights(back, base);
      or_throw(env->remove_file("m.gguf"));
    }
  }
}

TEST(WriteGguf, WritesTheFileThatTheConverterWould) {
  const BackboneConfig config = tiny_config();
  const auto env = make_memory_env();
  put_base_folder(*env, "base", config);
  or_throw(write_all(*env, "m.gguf", or_throw(open_base_model(*env, "base")), GgmlType::kF32));
  const auto file = or_throw(GgufFile::open(*env, "m.gguf"));
  const testing::TinyGguf expected = testing::tiny_gguf(config);  // rows permuted by its own code
  for (const auto& [name, tensor] : expected.tensors) {
    const GgufTensor* found = file->find_tensor(name);
    ASSERT_NE(found, nullptr) << name;
    const auto bytes = std::as_bytes(std::span(tensor.second));
    EXPECT_TRUE(std::equal(found->bytes.begin(), found->bytes.end(), bytes.begin(), bytes.end())) << name;
  }
}

TEST(WriteGguf, SaysLlama3sRopeAsATensor) {
  BackboneConfig config = tiny_config();
  config.rope_llama3 = BackboneConfig::Llama3Rope{8, 1, 4, 8192};
  const auto env = make_memory_env();
  put_base_folder(*env, "base", config);
  or_throw(write_all(*env, "m.gguf", or_throw(open_base_model(*env, "base")), GgmlType::kF32));
  const BaseModel back = or_throw(open_base_model(*env, "m.gguf"));
  ASSERT_TRUE(back.config.rope_llama3.has_value());
}

TEST(WriteGguf, RefusesWhatTheFileCannotSay) {
  const auto env = make_memory_env();
  put_base_folder(*env, "t5", tiny_config(Family::kT5));
  expect_error(write_all(*env, "m.gguf", or_throw(open_base_model(*env, "t5")), GgmlType::kF32), "a T5 model");
  put_base_folder(*env, "base", tiny_config());
  const BaseModel base = or_throw(open_base_model(*env, "base"));
  const Status stopped =
      write_gguf(*env, "m.gguf", base, GgmlType::kF32, {}, [](std::int64_t, const std::string&) { return false; });
  ASSERT_FALSE(stopped.ok());
  EXPECT_EQ(stopped.error().kind, ErrorKind::kInterrupted);
  EXPECT_FALSE(env->exists("m.gguf"));
}

}  // namespace
}  // namespace skein
