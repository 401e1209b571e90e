// arcee_fusion: the model's delta is kept where its importance is at least median + 1.5 (q3 - q1) of all importances;
// importance = |model - base| times the divergence KL(softmax(model row) || softmax(base row)), with 1e-8 added to the
// probabilities. The quantiles are exact: order statistics number floor(q (n - 1)), found by histogram.
#include <algorithm>
#include <bit>
#include <cmath>

#include "skein/merge/methods/magnitude_selection.h"
#include "skein/merge/methods/methods.h"
#include "skein/merge/methods/per_tensor.h"
#include "skein/merge/methods/portable_math.h"

namespace skein::merge {
namespace {

class FusionTensor final : public TensorMerge {
 public:
  FusionTensor(const TensorJob& job, WorkerTiles& tiles, CountTablePool& pool)
      : tiles_(tiles), blocks_(layout(Pieces::kRows, job.shape)), row_(job.shape.empty() ? 1 : job.shape.back()) {
    if (blocks_.num_blocks == 0) return;
    divergence_.assign(static_cast<std::size_t>(blocks_.num_elements / row_), 0);
    if (blocks_.num_elements == 1) return;  // its own quantiles: kept
    // Ranks from the largest down.
    const auto rank = [&](double q) {
      return blocks_.num_elements - 1 - static_cast<std::int64_t>(q * static_cast<double>(blocks_.num_elements - 1));
    };
    const std::int64_t q3 = rank(0.75), q1 = rank(0.25);
    quantiles_ = std::make_unique<MagnitudeSelection>(DType::kF32, blocks_.num_elements, blocks_.num_blocks,
                                                      std::vector<RankWindow>{{q3, q1 - q3 + 1}, {rank(0.5), 1}},
                                                      TiesAtCut::kLowestIndex, pool);
  }

  Pieces pieces() const override { return Pieces::kRows; }
  // Divergences, then the two levels of the histogram; ties do not matter.
  int num_passes() const override { return 3; }

  void reduce(int pass, const Block& block, int worker) override {
    if (pass == 0) {
      for (std::int64_t start = 0; start < block.count; start += row_) {
        divergence_[static_cast<std::size_t>((block.first + start) / row_)] = row_divergence(block, start, worker);
      }
      return;
    }
    for_each_run(block, [&](std::int64_t offset, std::int64_t n, float divergence) {
      const float* importance = importances(block, offset, n, divergence, worker);
      for (const int which : {0, 1}) {
        if (quantiles_) quantiles_->count(pass - 1, which, block.index, importance, n, worker);
      }
    });
  }

  Partials partials(int pass) override {
    return pass == 0 ? Partials{.sums = divergence_} : quantiles_ ? quantiles_->partials(pass - 1) : Partials{};
  }

  Status finish(int pass) override {
    if (pass == 0 || !quantiles_) return {};
    quantiles_->finish(pass - 1);
    if (pass < 2) return {};
    const auto value = [&](int which, int cut) { return std::bit_cast<float>(quantiles_->cut_bits(which, cut)); };
    threshold_ = value(1, 0) + 1.5F * (value(0, 0) - value(0, 1));
    return {};
  }

  void apply(const Block& block, const Output& output, int worker) override {
    for_each_run(block, [&](std::int64_t offset, std::int64_t n, float divergence) {
      const float* importance = importances(block, offset, n, divergence, worker);
      float* base = tiles_.tile(worker, 0);
      const float* delta = tiles_.tile(worker, 1);
      for (std::int64_t i = 0; i < n; ++i) {
        if (importance[i] >= threshold_) base[i] += delta[i];
      }
      kernels_.store(base, n, output, offset);
    });
  }

 private:
  template <class Body>
  void for_each_run(const Block& block, const Body& body) const {
    for (std::int64_t start = 0; start < block.count; start += row_) {
      const auto divergence = static_cast<float>(divergence_[static_cast<std::size_t>((block.first + start) / row_)]);
      for (std::int64_t offset = start; offset < start + row_; offset += kTile) {
        body(offset, std::min(kTile, start + row_ - offset), divergence);
      }
    }
  }

  // Tile 0: base, 1: delta, 2: what is returned.
  const float* importances(const Block& block, std::int64_t offset, std::int64_t n, float divergence, int worker) {
    float* base = tiles_.tile(worker, 0);
    float* delta = tiles_.tile(worker, 1);
    float* importance = tiles_.tile(worker, 2);
    kernels_.load(block.base, offset, n, base);
    kernels_.load_delta(block.models[0], offset, n, base, delta);
    for (std::int64_t i = 0; i < padded(n); ++i) importance[i] = std::abs(delta[i]) * divergence;
    return importance;
  }

  // In f64, with exponentials that are the same on every machine.
  double row_divergence(const Block& block, std::int64_t start, int worker) {
    const Piece* pieces[2] = {&block.models[0], &block.base};
    float highest[2] = {-INFINITY, -INFINITY};
    double sums[2] = {0, 0};
    const auto over_row = [&](const auto& body) {
      for (std::int64_t offset = start; offset < start + row_; offset += kTile) {
        const std::int64_t n = std::min(kTile, start + row_ - offset);
        for (const int which : {0, 1}) kernels_.load(*pieces[which], offset, n, tiles_.tile(worker, which));
        body(tiles_.tile(worker, 0), tiles_.tile(worker, 1), n);
      }
    };
    over_row([&](const float* x, const float* b, std::int64_t n) {
      highest[0] = std::max(highest[0], *std::max_element(x, x + n));
      highest[1] = std::max(highest[1], *std::max_element(b, b + n));
    });
    over_row([&](const float* x, const float* b, std::int64_t n) {
      for (std::int64_t i = 0; i < n; ++i) {
        sums[0] += portable_exp(static_cast<double>(x[i]) - highest[0]);
        sums[1] += portable_exp(static_cast<double>(b[i]) - highest[1]);
      }
    });
    double divergence = 0;
    over_row([&](const float* x, const float* b, std::int64_t n) {
      for (std::int64_t i = 0; i < n; ++i) {
        const double p = portable_exp(static_cast<double>(x[i]) - highest[0]) / sums[0] + 1e-8;
        const double q = portable_exp(static_cast<double>(b[i]) - highest[1]) / sums[1] + 1e-8;
        divergence += p * portable_log(p / q);
      }
    });
    // A divergence is not negative; a sum that is comes from rounding.
    return std::max(divergence, 0.0);
  }

  WorkerTiles& tiles_;
  BlockLayout blocks_;
  std::int64_t row_;
  std::vector<double> divergence_;  // per row
  std::unique_ptr<MagnitudeSelection> quantiles_;
  float threshold_ = 0;
  TileKernels kernels_ = tile_kernels();
};

class FusionModel final : public ModelMerge {
 public:
  explicit FusionModel(int num_workers) : num_workers_(num_workers), tiles_(num_workers, 3), pool_(num_workers) {}
  Result<std::unique_ptr<TensorMerge>> tensor(const TensorJob& job) override {
    return std::unique_ptr<TensorMerge>(std::make_unique<FusionTensor>(job, tiles_, pool_));
  }
  std::int64_t working_bytes(const TensorJob& job) const override {
    const BlockLayout blocks = layout(Pieces::kRows, job.shape);
    const std::int64_t row = job.shape.empty() || job.shape.back() == 0 ? 1 : job.shape.back();
    return WorkerTiles::bytes(num_workers_, 3) + blocks.num_elements / row * 8 +
           MagnitudeSelection::working_bytes(DType::kF32, 2, blocks.num_blocks, num_workers_);
  }

 private:
  int num_workers_;
  WorkerTiles tiles_;
  CountTablePool pool_;
};

Result<std::unique_ptr<ModelMerge>> make(const MethodInfo&, std::span<const TensorJob>, int num_workers) {
  return std::unique_ptr<ModelMerge>(std::make_unique<FusionModel>(num_workers));
}

}  // namespace

std::vector<MethodInfo> arcee_fusion_methods() {
  return {{.name = "arcee_fusion",
           .title = "Arcee fusion",
           .reference = "https://arcee.ai",
           .max_models = 1,
           .missing = MissingTensor::kPassSingle,
           .make = make}};
}

}  // namespace skein::merge
