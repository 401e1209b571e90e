// Small models of made-up tensors for tests of the merge engine.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "skein/base/concat.h"
#include "skein/base/half.h"
#include "skein/io/convert_elements.h"
#include "skein/io/env.h"
#include "skein/io/json.h"
#include "skein/io/safetensors.h"

namespace skein::merge::testing {

struct TestTensor {
  std::string name;
  Shape shape;
  DType dtype = DType::kBF16;
};

// Numbers in [-1, 1) that depend on seed, name and place alone.
inline std::vector<float> test_values(std::uint64_t seed, const TestTensor& tensor) {
  std::uint64_t state = seed * 0x9e3779b97f4a7c15ULL + 1;
  for (const char c : tensor.name) state = (state ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  std::vector<float> values(static_cast<std::size_t>(checked_numel(tensor.shape).value()));
  for (auto& value : values) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    value = static_cast<float>(static_cast<std::int64_t>(state) >> 40) / static_cast<float>(1 << 23);
  }
  return values;
}

inline std::vector<std::byte> bytes_of(const std::vector<float>& values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * static_cast<std::size_t>(dtype_size(dtype)));
  convert_from_f32(values.data(), static_cast<std::int64_t>(values.size()), dtype, bytes.data());
  return bytes;
}

// Embedding, `layers` layers, norm and head of a tiny Llama-like model.
inline std::vector<TestTensor> test_tensors(int layers = 2, std::int64_t width = 8, DType dtype = DType::kBF16) {
  std::vector<TestTensor> tensors{{"model.embed_tokens.weight", {16, width}, dtype},
                                  {"model.norm.weight", {width}, dtype},
                                  {"lm_head.weight", {16, width}, dtype}};
  for (int layer = 0; layer < layers; ++layer) {
    const std::string prefix = concat("model.layers.", layer, ".");
    tensors.push_back({prefix + "self_attn.q_proj.weight", {width, width}, dtype});
    tensors.push_back({prefix + "mlp.up_proj.weight", {2 * width, width}, dtype});
    tensors.push_back({prefix + "input_layernorm.weight", {width}, dtype});
  }
  return tensors;
}

// A model folder: config.json, model.safetensors. Fails the test where that cannot be written.
inline void write_model(Env& env, const std::string& folder, std::uint64_t seed,
                        const std::vector<TestTensor>& tensors) {
  or_throw(env.make_folders(folder));
  std::vector<std::vector<std::byte>> bytes;
  std::vector<NamedTensor> named;
  bytes.reserve(tensors.size());
  for (const auto& tensor : tensors) {
    bytes.push_back(bytes_of(test_values(seed, tensor), tensor.dtype));
    named.push_back({tensor.name, TensorView{tensor.dtype, tensor.shape, bytes.back()}});
  }
  or_throw(write_safetensors(env, join_path(folder, "model.safetensors"), named, {{"format", "pt"}}));
  or_throw(write_text_atomically(env, join_path(folder, "config.json"),
                                 R"({"model_type": "llama", "num_hidden_layers": 2, "vocab_size": 16})"));
}

// The same tensors over several files and an index: the first half of the names in one, the rest in another.
inline void write_sharded_model(Env& env, const std::string& folder, std::uint64_t seed,
                                const std::vector<TestTensor>& tensors) {
  or_throw(env.make_folders(folder));
  Json map = Json::object();
  for (std::size_t shard = 0; shard < 2; ++shard) {
    std::vector<std::vector<std::byte>> bytes;
    std::vector<NamedTensor> named;
    bytes.reserve(tensors.size());
    const std::string name = concat("part-", shard, ".safetensors");
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if ((i % 2 == 0) != (shard == 0)) continue;
      bytes.push_back(bytes_of(test_values(seed, tensors[i]), tensors[i].dtype));
      named.push_back({tensors[i].name, TensorView{tensors[i].dtype, tensors[i].shape, bytes.back()}});
      map[tensors[i].name] = name;
    }
    or_throw(write_safetensors(env, join_path(folder, name), named, {}));
  }
  or_throw(
      write_text_atomically(env, join_path(folder, "model.safetensors.index.json"), Json{{"weight_map", map}}.dump()));
  or_throw(write_text_atomically(env, join_path(folder, "config.json"),
                                 R"({"model_type": "llama", "num_hidden_layers": 2, "vocab_size": 16})"));
}

// A tensor of a finished model as floats.
inline std::vector<float> read_tensor(Env& env, const std::string& folder, const std::string& name) {
  const auto weights = or_throw(open_safetensors_folder(env, folder));
  const TensorInfo* info = weights->find(name);
  EXPECT_NE(info, nullptr) << name;
  if (info == nullptr) return {};
  std::vector<float> values(static_cast<std::size_t>(checked_numel(info->shape).value()));
  or_throw(weights->read(name, DType::kF32, std::as_writable_bytes(std::span(values))));
  return values;
}

}  // namespace skein::merge::testing
