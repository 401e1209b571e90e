#include "skein/nn/random_base.h"

#include <cmath>
#include <cstring>
#include <random>

#include "skein/base/check.h"
#include "skein/base/concat.h"
#include "skein/base/half.h"
#include "skein/spec/tensor_names.h"

namespace skein {
namespace {

class MemoryCheckpoint : public Checkpoint {
 public:
  void add(const std::string& name, const Shape& shape, std::vector<float> values) {
    infos_.push_back(TensorInfo{name, DType::kF32, shape, "F32"});
    values_[name] = std::move(values);
  }
  const std::string& path() const override { return path_; }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const TensorInfo* find(const std::string& name) const override {
    for (const TensorInfo& info : infos_) {
      if (info.name == name) return &info;
    }
    return nullptr;
  }
  Status read(const std::string& name, DType dtype, std::span<std::byte> out) const override {
    const std::vector<float>& values = values_.at(name);
    SKEIN_CHECK(out.size() == values.size() * static_cast<std::size_t>(dtype_size(dtype)));
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (dtype == DType::kF32) {
        std::memcpy(out.data() + 4 * i, &values[i], 4);
      } else {
        const std::uint16_t bits = f32_to_bf16(values[i]);
        std::memcpy(out.data() + 2 * i, &bits, 2);
      }
    }
    return {};
  }
  std::optional<TensorView> view(const std::string&) const override { return std::nullopt; }
  const std::vector<std::pair<std::string, std::string>>& metadata() const override { return metadata_; }

 private:
  std::string path_ = "memory";
  std::vector<TensorInfo> infos_;
  std::map<std::string, std::vector<float>> values_;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

}  // namespace

BackboneConfig tiny_config(Family family) {
  BackboneConfig config{.family = family,
                        .num_layers = 3,
                        .d_model = 40,
                        .num_heads = 4,
                        .num_kv_heads = 2,
                        .d_head = 10,
                        .d_ff = 52,
                        .vocabulary_size = 61,
                        .max_positions = 512,
                        .norm_eps = 1e-5};
  config.query_scale = 1 / std::sqrt(10.0);
  if (family == Family::kQwen2) config.qkv_bias = true;
  if (family == Family::kQwen3) {
    config.qk_norm = true;
    config.tied_embeddings = false;
  }
  if (family == Family::kGemma3) {
    config.qk_norm = true;
    config.norm_adds_one = true;
    config.activation = Activation::kGeluTanh;
    config.embedding_scale = std::sqrt(40.0);
    config.rope_theta = 1e6;
    config.sliding_window = 5;
    config.layer_is_sliding = {true, true, false};
  }
  if (family == Family::kT5) {
    config.num_decoder_layers = 2;
    config.num_kv_heads = 4;
    config.query_scale = 1;
    config.relative_buckets = 8;
    config.relative_max_distance = 20;
    config.activation = Activation::kGeluTanh;
    config.tied_embeddings = false;
  }
  return config;
}

BaseModel random_base(const BackboneConfig& config, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  auto checkpoint = std::make_unique<MemoryCheckpoint>();
  for (const TensorName& tensor : tensor_names(config)) {
    const bool norm = tensor.role == TensorRole::kNorm;
    const double center = norm && !config.norm_adds_one ? 1 : 0;
    double spread = norm ? 0.2 : 0.5;
    if (tensor.role == TensorRole::kLinear) spread = 1 / std::sqrt(static_cast<double>(tensor.shape[1]));
    std::normal_distribution<double> normal(center, spread);
    std::vector<float> values(static_cast<std::size_t>(*checked_numel(tensor.shape)));
    for (float& value : values) value = static_cast<float>(normal(random));
    checkpoint->add(tensor.name, tensor.shape, std::move(values));
  }
  return BaseModel{"memory", config, std::move(checkpoint)};
}

}  // namespace skein
