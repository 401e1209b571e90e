// Models of made-up numbers, for benchmarks that need none with a meaning.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/io/safetensors.h"

namespace skein {

// The sizes of a decoder model.
struct BenchShape {
  std::string name;
  std::string model_type;  // "llama", "qwen2"
  std::int64_t layers = 0, hidden = 0, feed_forward = 0, heads = 0, kv_heads = 0, head_size = 0, vocabulary = 0;
  bool has_qkv_bias = false;
};
// smollm2-135m, qwen2.5-1.5b, tiny.
const std::vector<BenchShape>& bench_shapes();
std::vector<TensorPlan> tensors_of(const BenchShape& shape);  // bf16, the head tied to the embedding
// `count` matrices of 128 MiB in bf16: a model of any size.
std::vector<TensorPlan> large_matrices(std::int64_t count);

// A Hugging Face folder of those tensors, config included. The numbers are about normal, with standard deviation 0.02,
// depend on seed, tensor and place alone, and none is 0.
Status write_bench_model(Env& env, const std::string& folder, const BenchShape& shape, std::uint64_t seed);
Status write_large_model(Env& env, const std::string& folder, std::int64_t num_matrices, std::uint64_t seed);

// A stand-in for a fine-tune of a model: a copy of the folder's files whose floating tensors have noise added, with a
// standard deviation of `noise` times each tensor's own (a fine-tune's deltas are about that small).
Status write_fine_tune(Env& env, const std::string& base, const std::string& folder, double noise, std::uint64_t seed);

}  // namespace skein
