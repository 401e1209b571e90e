#include "skein/cli/bench_models.h"

#include <gtest/gtest.h>

#include <cmath>

#include "skein/io/json.h"

namespace skein {
namespace {

std::vector<float> values_of(Env& env, const std::string& folder, const std::string& name) {
  const auto weights = or_throw(open_safetensors_folder(env, folder));
  std::vector<float> values(static_cast<std::size_t>(*checked_numel(weights->find(name)->shape)));
  or_throw(weights->read(name, DType::kF32, std::as_writable_bytes(std::span(values))));
  return values;
}

double deviation_of(const std::vector<float>& values) {
  double squares = 0;
  for (const float value : values) squares += double{value} * value;
  return std::sqrt(squares / static_cast<double>(values.size()));
}

constexpr char kEmbedding[] = "model.embed_tokens.weight";

TEST(BenchModels, HaveTheParametersOfTheirNames) {
  for (const auto& [name, millions] : {std::pair("smollm2-135m", 134.5), std::pair("qwen2.5-1.5b", 1543.7)}) {
    for (const auto& shape : bench_shapes()) {
      if (shape.name != name) continue;
      double elements = 0;
      for (const auto& tensor : tensors_of(shape)) elements += static_cast<double>(*checked_numel(tensor.shape));
      EXPECT_NEAR(elements / 1e6, millions, 0.1) << name;
    }
  }
}

TEST(BenchModels, NumbersAreNormalAndNoneIsZero) {
  const auto env = make_memory_env();
  or_throw(write_bench_model(*env, "m", bench_shapes().back(), 1));
  const auto values = values_of(*env, "m", kEmbedding);
  EXPECT_EQ(std::count(values.begin(), values.end(), 0.0F), 0);
  // The deviation of n values errs by 1 / sqrt(2 n) of itself: here 0.6 %; 4 of those.
  EXPECT_NEAR(deviation_of(values), 0.02, 0.02 * 4 * 0.0056);
  EXPECT_NE(values, values_of(*env, "m", "model.layers.0.mlp.up_proj.weight"));
}

TEST(BenchModels, AFineTuneIsItsBasePlusSmallNoise) {
  const auto env = make_memory_env();
  or_throw(write_bench_model(*env, "m", bench_shapes().back(), 1));
  or_throw(write_fine_tune(*env, "m", "t0", 0.05, 0));
  or_throw(write_fine_tune(*env, "m", "t1", 0.05, 1));
  auto base = values_of(*env, "m", kEmbedding), tuned = values_of(*env, "t0", kEmbedding);
  EXPECT_NE(tuned, values_of(*env, "t1", kEmbedding));
  for (std::size_t i = 0; i < base.size(); ++i) tuned[i] -= base[i];
  // Noise of 0.05 * 0.02, plus the rounding to bf16 of numbers below 0.08 (at most 2^-13, about uniform: 7e-5).
  EXPECT_NEAR(deviation_of(tuned), 0.001, 0.0001);
  EXPECT_EQ(or_throw(read_json_file(*env, "t0/config.json")).at("model_type"), "llama");
}

}  // namespace
}  // namespace skein
