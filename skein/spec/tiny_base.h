// Tiny bases of every family, in an Env, for tests: as a Hugging Face folder and as a GGUF file.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "skein/base/concat.h"
#include "skein/io/safetensors.h"
#include "skein/io/test_bytes.h"
#include "skein/spec/backbone_config.h"
#include "skein/spec/tensor_names.h"

namespace skein::testing {

inline BackboneConfig tiny_config(Family family = Family::kLlama) {
  BackboneConfig c;
  c.family = family;
  c.num_layers = 2;
  c.d_model = 12;
  c.num_heads = 4;
  c.num_kv_heads = family == Family::kT5 ? 4 : 2;
  c.d_head = 4;
  c.d_ff = 20;
  c.vocabulary_size = 32;
  c.max_positions = 64;
  c.query_scale = 0.5;
  c.eos_tokens = {2};
  c.qkv_bias = family == Family::kQwen2;
  c.qk_norm = family == Family::kQwen3 || family == Family::kGemma3;
  if (family == Family::kGemma3) {
    c.activation = Activation::kGeluTanh;
    c.norm_adds_one = true;
    c.embedding_scale = 3.4641016151377544;  // sqrt(12)
    c.rope_theta = 1e6;
    c.sliding_window = 8;
    c.layer_is_sliding = {true, false};
  }
  if (family == Family::kT5) {
    c.num_decoder_layers = 1;
    c.query_scale = 1;
    c.activation = Activation::kGeluTanh;
    c.tied_embeddings = false;
    c.relative_buckets = 8;
    c.relative_max_distance = 20;
    c.max_positions = 512;
  }
  return c;
}

using TensorMap = std::map<std::string, std::vector<float>>;

// Values that differ from place to place and that bf16 holds exactly: n / 64 with |n| <= 64.
inline TensorMap tiny_tensors(const BackboneConfig& config) {
  TensorMap tensors;
  std::uint32_t state = 1;
  for (const TensorName& name : tensor_names(config)) {
    std::vector<float>& values = tensors[name.name];
    values.resize(static_cast<std::size_t>(*checked_numel(name.shape)));
    for (float& value : values) {
      state = state * 1664525u + 1013904223u;
      value = static_cast<float>(static_cast<int>(state >> 25) - 64) / 64;
    }
  }
  return tensors;
}

// What to change in a folder before it is written.
struct FolderEdit {
  std::function<void(Json&)> config = [](Json&) {};
  std::function<void(std::vector<NamedTensor>&)> tensors = [](std::vector<NamedTensor>&) {};
};

inline void put_base_folder(Env& env, const std::string& folder, const BackboneConfig& config,
                            const FolderEdit& edit = {}) {
  Json json = config_to_json(config, "float32");
  edit.config(json);
  or_throw(env.make_folders(folder));
  put_file(env, folder + "/config.json", json.dump());
  const TensorMap values = tiny_tensors(config);
  std::vector<NamedTensor> tensors;
  for (const TensorName& name : tensor_names(config)) {
    tensors.push_back({name.name, {DType::kF32, name.shape, std::as_bytes(std::span(values.at(name.name)))}});
  }
  edit.tensors(tensors);
  or_throw(write_safetensors(env, folder + "/model.safetensors", tensors));
}

inline std::string gguf_text(const std::string& value) { return little_endian<std::uint64_t>(value.size()) + value; }

// The parts of a GGUF file of F32 tensors under llama.cpp's names.
struct TinyGguf {
  std::string architecture;
  std::string pairs;
  std::uint64_t num_pairs = 0;
  std::map<std::string, std::pair<Shape, std::vector<float>>> tensors;

  void text(const std::string& key, const std::string& value) { add(key, 8, gguf_text(value)); }
  void integer(const std::string& key, std::uint32_t value) { add(architecture + "." + key, 4, little_endian(value)); }
  void number(const std::string& key, float value) { add(architecture + "." + key, 6, little_endian(value)); }
  void add(const std::string& key, std::uint32_t kind, const std::string& value) {
    ++num_pairs;
    pairs += gguf_text(key) + little_endian(kind) + value;
  }

  std::string bytes() const {
    std::string header = concat("GGUF", little_endian<std::uint32_t>(3), little_endian<std::uint64_t>(tensors.size()),
                                little_endian(num_pairs), pairs);
    std::string data;
    for (const auto& [name, tensor] : tensors) {
      header += gguf_text(name) + little_endian(static_cast<std::uint32_t>(tensor.first.size()));
      for (auto extent = tensor.first.rbegin(); extent != tensor.first.rend(); ++extent)
        header += little_endian(*extent);
      header += little_endian<std::uint32_t>(0) + little_endian<std::uint64_t>(data.size());
      data.append(reinterpret_cast<const char*>(tensor.second.data()), tensor.second.size() * sizeof(float));
      data.resize((data.size() + 31) / 32 * 32);
    }
    header.resize((header.size() + 31) / 32 * 32);
    return header + data;
  }
};

// llama.cpp's converter on the rows of q and k: row s Dh/2 + i of a head goes to row 2 i + s.
inline std::vector<float> permuted_rows(const std::vector<float>& values, std::int64_t heads, std::int64_t columns) {
  std::vector<float> out(values.size());
  const std::int64_t rows = static_cast<std::int64_t>(values.size()) / columns, d_head = rows / heads;
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t s = 0; s < 2; ++s)
      for (std::int64_t i = 0; i < d_head / 2; ++i)
        std::copy_n(values.begin() + (h * d_head + s * d_head / 2 + i) * columns, columns,
                    out.begin() + (h * d_head + 2 * i + s) * columns);
  return out;
}

// tiny_tensors(config) as llama.cpp's converter would write them.
inline TinyGguf tiny_gguf(const BackboneConfig& c) {
  TinyGguf file;
  file.architecture = std::string(family_name(c.family));
  file.text("general.architecture", file.architecture);
  file.integer("block_count", static_cast<std::uint32_t>(c.num_layers));
  file.integer("embedding_length", static_cast<std::uint32_t>(c.d_model));
  file.integer("feed_forward_length", static_cast<std::uint32_t>(c.d_ff));
  file.integer("attention.head_count", static_cast<std::uint32_t>(c.num_heads));
  file.integer("attention.head_count_kv", static_cast<std::uint32_t>(c.num_kv_heads));
  file.integer("attention.key_length", static_cast<std::uint32_t>(c.d_head));
  file.integer("context_length", static_cast<std::uint32_t>(c.max_positions));
  file.number("attention.layer_norm_rms_epsilon", static_cast<float>(c.norm_eps));
  if (c.family == Family::kT5) {
    file.integer("decoder_block_count", static_cast<std::uint32_t>(c.num_decoder_layers));
    file.integer("attention.relative_buckets_count", static_cast<std::uint32_t>(c.relative_buckets));
  } else {
    file.number("rope.freq_base", static_cast<float>(c.rope_theta));
  }
  if (c.sliding_window > 0) {
    file.integer("attention.sliding_window", static_cast<std::uint32_t>(c.sliding_window));
    file.integer("attention.sliding_window_pattern", 2);
  }
  file.add("tokenizer.ggml.eos_token_id", 4, little_endian<std::uint32_t>(2));
  const TensorMap values = tiny_tensors(c);
  for (const TensorName& name : tensor_names(c)) {
    std::vector<float> stored = values.at(name.name);
    if (name.permuted_heads > 0) stored = permuted_rows(stored, name.permuted_heads, name.shape[1]);
    if (c.norm_adds_one && name.role == TensorRole::kNorm)
      for (float& value : stored) value += 1;
    file.tensors[name.gguf_name] = {name.shape, std::move(stored)};
  }
  return file;
}

}  // namespace skein::testing
