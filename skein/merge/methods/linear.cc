// linear: sum w_i x_i, divided by sum w_i unless normalize is off. Model soups, arXiv 2203.05482.
// passthrough: the only model, times `scale` if given.
#include "skein/merge/methods/methods.h"
#include "skein/merge/methods/per_tensor.h"

namespace skein::merge {
namespace {

class LinearTensor final : public TensorMerge {
 public:
  static constexpr int kExtraTiles = 1;

  LinearTensor(std::vector<float> weights, float divisor, const Workshop& workshop)
      : weights_(std::move(weights)), divisor_(divisor), tiles_(workshop.tiles) {}

  static Result<std::unique_ptr<TensorMerge>> make(const TensorJob& job, const Workshop& workshop) {
    const MethodParameters& parameters = *job.parameters;
    std::vector<float> weights;
    float sum = 0;
    for (int m = 0; m < job.num_models; ++m) {
      weights.push_back(static_cast<float>(parameters.number("weight", m)));
      sum += weights.back();
    }
    // Weights that sum to 0 have no average: better an error than infinities in a file.
    if (parameters.flag("normalize") && sum == 0) {
      return Error{"linear: " + job.name + ": the weights sum to 0 and normalize is on; set normalize: false"};
    }
    return std::unique_ptr<TensorMerge>(
        std::make_unique<LinearTensor>(std::move(weights), parameters.flag("normalize") ? sum : 1.0F, workshop));
  }
  static std::int64_t working_bytes(const TensorJob&, int) { return 0; }

  void apply(const Block& block, const Output& output, int worker) override {
    float* sum = tiles_->tile(worker, 0);
    for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
      std::fill_n(sum, padded(n), 0.0F);
      for (std::size_t m = 0; m < weights_.size(); ++m) {
        kernels_.add_scaled(block.models[m], offset, n, weights_[m], sum);
      }
      if (divisor_ != 1) kernels_.divide(sum, n, divisor_);
      kernels_.store(sum, n, output, offset);
    });
  }

 private:
  std::vector<float> weights_;
  float divisor_;
  WorkerTiles* tiles_;
  TileKernels kernels_ = tile_kernels();
};

class PassthroughTensor final : public TensorMerge {
 public:
  static constexpr int kExtraTiles = 1;

  PassthroughTensor(float scale, const Workshop& workshop) : scale_(scale), tiles_(workshop.tiles) {}

  static Result<std::unique_ptr<TensorMerge>> make(const TensorJob& job, const Workshop& workshop) {
    const bool scaled = job.parameters->has("scale", 0);
    return std::unique_ptr<TensorMerge>(std::make_unique<PassthroughTensor>(
        scaled ? static_cast<float>(job.parameters->number("scale", 0)) : 1.0F, workshop));
  }
  static std::int64_t working_bytes(const TensorJob&, int) { return 0; }

  void apply(const Block& block, const Output& output, int worker) override {
    float* tile = tiles_->tile(worker, 0);
    for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
      kernels_.load(block.models[0], offset, n, tile);
      if (scale_ != 1) kernels_.scale(tile, n, scale_);
      kernels_.store(tile, n, output, offset);
    });
  }

 private:
  float scale_;
  WorkerTiles* tiles_;
  TileKernels kernels_ = tile_kernels();
};

}  // namespace

std::vector<MethodInfo> linear_methods() {
  ParameterSpec scale = per_model_number("scale", 1.0, "factor of the copy (absent: the bytes as they are)");
  scale.fallback.reset();
  return {
      {.name = "linear",
       .title = "Linear",
       .reference = "https://arxiv.org/abs/2203.05482",
       .base = BaseRole::kNone,
       .parameters = {per_model_number("weight", std::nullopt, "share of this model"),
                      flag("normalize", true, "divide by the sum of the weights")},
       .make = PerTensorMerge<LinearTensor>::make},
      {.name = "passthrough",
       .title = "Passthrough",
       .reference = "",
       .base = BaseRole::kNone,
       .max_models = 1,
       .is_copy = [](const MethodParameters& parameters) { return !parameters.has("scale", 0); },
       .parameters = {scale},
       .make = PerTensorMerge<PassthroughTensor>::make},
  };
}

}  // namespace skein::merge
