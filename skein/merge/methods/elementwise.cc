// Methods whose every output element depends on that element of the inputs only (and a few counts):
//   nearswap  w = clamp(t / max(|base - model|, 1e-6), 0, 1); w * model + (1 - w) * base
//   ram       deltas above epsilon are active; base + the active one where there is one, else the active ones' mean
//   ramplus_tl  the same, lone ones times 1 + r * clip(shared / lone, 0, alpha), counted per model and tensor
// RAM: arXiv 2601.13572.
#include <algorithm>
#include <cmath>

#include "skein/merge/methods/methods.h"
#include "skein/merge/methods/per_tensor.h"

namespace skein::merge {
namespace {

class NearswapTensor final : public TensorMerge {
 public:
  static constexpr int kExtraTiles = 1;
  NearswapTensor(const TensorJob& job, const Workshop& workshop)
      : t_(static_cast<float>(job.parameters->number("t"))), tiles_(*workshop.tiles) {}
  static Result<std::unique_ptr<TensorMerge>> make(const TensorJob& job, const Workshop& workshop) {
    return std::unique_ptr<TensorMerge>(std::make_unique<NearswapTensor>(job, workshop));
  }
  static std::int64_t working_bytes(const TensorJob&, int) { return 0; }

  void apply(const Block& block, const Output& output, int worker) override {
    float* a = tiles_.tile(worker, 0);
    float* b = tiles_.tile(worker, 1);
    for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
      kernels_.load(block.base, offset, n, a);
      kernels_.load(block.models[0], offset, n, b);
      for (std::int64_t i = 0; i < n; ++i) {
        const float w = std::clamp(t_ / std::max(std::abs(a[i] - b[i]), 1e-6F), 0.0F, 1.0F);
        a[i] = w * b[i] + (1 - w) * a[i];
      }
      kernels_.store(a, n, output, offset);
    });
  }

 private:
  float t_;
  WorkerTiles& tiles_;
  TileKernels kernels_ = tile_kernels();
};

template <bool kPlus>
class RamTensor final : public TensorMerge {
 public:
  static constexpr int kExtraTiles = 2;
  RamTensor(const TensorJob& job, const Workshop& workshop)
      : job_(job),
        epsilon_(static_cast<float>(job.parameters->number("epsilon"))),
        tiles_(*workshop.tiles),
        num_blocks_(layout(Pieces::kBlocks, job.shape).num_blocks),
        lone_factors_(static_cast<std::size_t>(job.num_models), 1.0F) {
    if (kPlus) counts_.resize(static_cast<std::size_t>(num_blocks_ * job.num_models * 2));
  }
  static Result<std::unique_ptr<TensorMerge>> make(const TensorJob& job, const Workshop& workshop) {
    return std::unique_ptr<TensorMerge>(std::make_unique<RamTensor>(job, workshop));
  }
  static std::int64_t working_bytes(const TensorJob& job, int) {
    return kPlus ? layout(Pieces::kBlocks, job.shape).num_blocks * job.num_models * 16 : 0;
  }

  int num_passes() const override { return kPlus ? 1 : 0; }
  Partials partials(int) override { return {.counts = counts_}; }

  void reduce(int, const Block& block, int worker) override {
    std::uint64_t* counts = counts_.data() + block.index * job_.num_models * 2;
    for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
      const auto deltas = load(block, offset, n, worker);
      for (std::int64_t i = 0; i < n; ++i) {
        const int lone = active_at(deltas, i) > 1 ? 0 : 1;
        for (std::size_t m = 0; m < deltas.size(); ++m) counts[2 * m + lone] += active(deltas[m][i]) ? 1 : 0;
      }
    });
  }

  Status finish(int) override {
    const double r = job_.parameters->number("r"), alpha = job_.parameters->number("alpha");
    for (int m = 0; m < job_.num_models; ++m) {
      std::uint64_t shared = 0, lone = 0;
      for (std::int64_t b = 0; b < num_blocks_; ++b) {
        const std::uint64_t* counts = counts_.data() + (b * job_.num_models + m) * 2;
        shared += counts[0];
        lone += counts[1];
      }
      const double rho =
          static_cast<double>(shared) / std::max(static_cast<double>(lone), job_.parameters->number("epsilon"));
      lone_factors_[static_cast<std::size_t>(m)] = static_cast<float>(1 + r * std::clamp(rho, 0.0, alpha));
    }
    return {};
  }

  void apply(const Block& block, const Output& output, int worker) override {
    const int num_models = job_.num_models;
    float* base = tiles_.tile(worker, num_models);
    float* out = tiles_.tile(worker, num_models + 1);
    for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
      const auto deltas = load(block, offset, n, worker);
      for (std::int64_t i = 0; i < n; ++i) {
        const int count = active_at(deltas, i);
        float sum = 0;
        for (std::size_t m = 0; m < deltas.size(); ++m) {
          const float delta = deltas[m][i];
          if (active(delta)) sum += count == 1 ? lone_factors_[m] * delta : delta;
        }
        out[i] = base[i] + (count > 1 ? sum / static_cast<float>(count) : sum);
      }
      kernels_.store(out, n, output, offset);
    });
  }

 private:
  bool active(float delta) const { return std::abs(delta) > epsilon_; }
  int active_at(const std::vector<const float*>& deltas, std::int64_t i) const {
    int count = 0;
    for (const float* delta : deltas) count += active(delta[i]) ? 1 : 0;
    return count;
  }
  std::vector<const float*> load(const Block& block, std::int64_t offset, std::int64_t n, int worker) {
    return load_deltas(kernels_, job_, block, offset, n, tiles_, worker);
  }

  const TensorJob& job_;
  float epsilon_;
  WorkerTiles& tiles_;
  std::int64_t num_blocks_;
  std::vector<float> lone_factors_;    // per model
  std::vector<std::uint64_t> counts_;  // [block][model][shared, lone]
  TileKernels kernels_ = tile_kernels();
};

}  // namespace

std::vector<MethodInfo> elementwise_methods() {
  const ParameterSpec epsilon = number("epsilon", 1e-5, "a delta no larger than this counts as none");
  return {
      {.name = "nearswap",
       .title = "NearSwap",
       .reference = "https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
       .max_models = 1,
       .missing = MissingTensor::kPassBaseSingle,
       .parameters = {number("t", std::nullopt, "distance up to which the other model's value replaces the base's")},
       .make = PerTensorMerge<NearswapTensor>::make},
      {.name = "ram",
       .title = "Reinforced agent merging",
       .reference = "https://arxiv.org/abs/2601.13572",
       .parameters = {epsilon},
       .make = PerTensorMerge<RamTensor<false>>::make},
      {.name = "ramplus_tl",
       .title = "Reinforced agent merging plus, tensor-local",
       .reference = "https://arxiv.org/abs/2601.13572",
       .parameters = {number("r", 0.1, "how much lone deltas grow with their model's share of shared ones"),
                      number("alpha", 0.2, "limit of that share"), epsilon},
       .make = PerTensorMerge<RamTensor<true>>::make},
  };
}

}  // namespace skein::merge
