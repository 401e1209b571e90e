// GGUF files as we read them against the parameters transformers makes of them: names, the row order of q and k,
// dequantisation, Gemma's norms.
#include <algorithm>

#include <gtest/gtest.h>

#include "skein/base/concat.h"
#include "skein/nn/bridge.h"
#include "skein/spec/base_model.h"
#include "tests/agreement/golden.h"

namespace skein::agreement {
namespace {

// Elements number (j * 2654435761) mod numel, j = 0 .. 63.
at::Tensor samples_of(const at::Tensor& tensor) {
  const at::Tensor idxs = at::remainder(at::arange(64, at::kLong) * 2654435761, tensor.numel());
  return tensor.flatten().index_select(0, idxs);
}

class GgufTensors : public testing::TestWithParam<const char*> {};

TEST_P(GgufTensors, EqualTheParametersOfTransformers) {
  const Golden golden(concat("tensors_", GetParam()));
  const BaseModel base = or_throw(open_base_model(real_env(), model_path(concat(GetParam(), ".gguf"))));
  std::size_t num_compared = 0;
  for (const TensorName& name : tensor_names(base.config)) {
    if (!golden.has(name.name)) {
      // A tied head is no parameter of its own.
      EXPECT_EQ(name.role, TensorRole::kHead) << name.name;
      continue;
    }
    ++num_compared;
    const at::Tensor ours = samples_of(load_tensor(*base.weights, name.name, ComputeOptions{}));
    // The same roundings in the same order: the same bits (tools/goldens/check_convert.py compares every element).
    EXPECT_TRUE(at::equal(ours, golden.floats(name.name))) << name.name;
  }
  EXPECT_EQ(num_compared, golden.names_after("").size());
}

INSTANTIATE_TEST_SUITE_P(Files, GgufTensors, testing::Values("smollm2", "gemma3-270m", "qwen25-coder-05b"),
                         [](const auto& file) {
                           std::string name = file.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace skein::agreement
