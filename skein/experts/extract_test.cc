#include "skein/experts/extract.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "skein/io/safetensors.h"
#include "skein/nn/bridge.h"

namespace skein {
namespace {

// A base and its fine-tune, written as Hugging Face folders into memory.
class ExtractTest : public ::testing::Test {
 protected:
  void SetUp() override {
    at::manual_seed(1);
    write_model("base", [](const TensorName& name) { return at::randn(name.shape); });
  }

  template <typename Make>
  void write_model(const std::string& folder, Make make) {
    BackboneConfig config;
    config.num_layers = 2;
    config.d_model = 32;
    config.num_heads = 4;
    config.num_kv_heads = 2;
    config.d_head = 8;
    config.d_ff = 48;
    config.vocabulary_size = 40;
    config.max_positions = 64;
    config.query_scale = 1 / std::sqrt(8.0);
    ASSERT_TRUE(env_->make_folders(folder).ok());
    ASSERT_TRUE(write_text_atomically(*env_, folder + "/config.json", config_to_json(config, "float32").dump()).ok());
    std::vector<at::Tensor> keep;
    std::vector<NamedTensor> named;
    for (const auto& name : tensor_names(config)) {
      keep.push_back(make(name).contiguous());
      named.push_back({name.name, view_of(keep.back())});
    }
    or_throw(write_safetensors(*env_, folder + "/model.safetensors", named));
  }

  at::Tensor base_tensor(const std::string& name) {
    const BaseModel base = or_throw(open_base_model(*env_, "base"));
    return load_tensor(*base.weights, name, {});
  }

  std::unique_ptr<Env> env_ = make_memory_env();
};

TEST(RandomizedSvd, FindsTheLeadingTriplesOfALowRankMatrix) {
  at::manual_seed(2);
  const at::Tensor matrix = at::randn({60, 5}).matmul(at::randn({5, 40}));
  const auto [u, sigma, v] = randomized_svd(matrix, 5, {});
  // Exact rank 5: what is left is rounding, a few hundred f32 units of the norm at most.
  EXPECT_LT(((u * sigma).matmul(v.t()) - matrix).norm().item<double>(), 1e-5 * matrix.norm().item<double>());
  const at::Tensor exact = at::linalg_svdvals(matrix).narrow(0, 0, 5);
  EXPECT_LT((sigma - exact).abs().max().item<double>(), 1e-5 * exact[0].item<double>());
}

TEST_F(ExtractTest, RecoversALowRankFineTuneToRounding) {
  write_model("tuned", [&](const TensorName& name) {
    const at::Tensor before = base_tensor(name.name);
    if (name.role != TensorRole::kLinear) return before;
    return before + 0.1 * at::randn({name.shape[0], 4}).matmul(at::randn({4, name.shape[1]}));
  });
  const BaseModel base = or_throw(open_base_model(*env_, "base"));
  const BaseModel tuned = or_throw(open_base_model(*env_, "tuned"));
  ExtractOptions options;
  options.rank = 4;
  const Extraction extraction = extract_lora(base, tuned, options, {});
  ASSERT_EQ(extraction.modules.size(), slot_names(base.config).size());
  EXPECT_TRUE(extraction.left_out.empty());
  for (const auto& module : extraction.modules) EXPECT_LT(module.relative_error, 1e-4) << module.module;
}

TEST_F(ExtractTest, ErrorIsTheTailOfTheSpectrum) {
  write_model("tuned", [&](const TensorName& name) { return base_tensor(name.name) + 0.01 * at::randn(name.shape); });
  const BaseModel base = or_throw(open_base_model(*env_, "base"));
  const BaseModel tuned = or_throw(open_base_model(*env_, "tuned"));
  ExtractOptions options;
  options.rank = 6;
  options.power_iterations = 8;
  const Extraction extraction = extract_lora(base, tuned, options, {});
  const std::string name = extraction.modules[0].module + ".weight";
  const at::Tensor sigma =
      at::linalg_svdvals(load_tensor(*tuned.weights, name, {}) - load_tensor(*base.weights, name, {}));
  const double tail = sigma.narrow(0, 6, sigma.size(0) - 6).norm().item<double>() / sigma.norm().item<double>();
  // Eckart-Young: no rank-6 matrix is nearer; eight power iterations leave at most a percent above it.
  EXPECT_GE(extraction.modules[0].relative_error, tail * (1 - 1e-4));
  EXPECT_LT(extraction.modules[0].relative_error, tail * 1.01);
  EXPECT_FALSE(extraction.left_out.empty()) << "norms and embeddings changed too and must be named";
}

TEST_F(ExtractTest, RefusesValuesThatAreNotFinite) {
  write_model("tuned", [&](const TensorName& name) {
    at::Tensor value = base_tensor(name.name).clone();
    if (name.role == TensorRole::kLinear) value[0][0] = std::numeric_limits<float>::quiet_NaN();
    return value;
  });
  const BaseModel base = or_throw(open_base_model(*env_, "base"));
  const BaseModel tuned = or_throw(open_base_model(*env_, "tuned"));
  EXPECT_THROW(extract_lora(base, tuned, {}, {}), Failure);
}

}  // namespace
}  // namespace skein
