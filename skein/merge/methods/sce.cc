// sce: select, calculate, erase (FuseChat 3, arXiv 2408.07990). Of the deltas, positions whose variance over the models
// is among the largest are kept (select_topk); each model weighs with the mean square of its kept deltas; entries whose
// sign is not that of the sum go; the rest is averaged by weight.
#include <algorithm>
#include <cmath>

#include "skein/merge/kernels/combine.h"
#include "skein/merge/kernels/sums.h"
#include "skein/merge/methods/magnitude_selection.h"
#include "skein/merge/methods/methods.h"
#include "skein/merge/methods/per_tensor.h"

namespace skein::merge {
namespace {

// Population variance over the models, in f32 in the models' order.
void variances(std::span<const float* const> deltas, std::int64_t n, float* variance) {
  const auto count = static_cast<float>(deltas.size());
  for (std::int64_t i = 0; i < n; ++i) {
    float mean = 0, squares = 0;
    for (const float* delta : deltas) mean += delta[i];
    mean /= count;
    for (const float* delta : deltas) squares += (delta[i] - mean) * (delta[i] - mean);
    variance[i] = squares / count;
  }
}

class SceTensor final : public TensorMerge {
 public:
  SceTensor(const TensorJob& job, WorkerTiles& tiles, CountTablePool& pool)
      : job_(job),
        tiles_(tiles),
        pool_(pool),
        topk_(job.parameters->number("select_topk")),
        blocks_(layout(Pieces::kBlocks, job.shape)) {
    if (selects()) varying_.assign(static_cast<std::size_t>(blocks_.num_blocks), 0);
    squares_.assign(static_cast<std::size_t>(blocks_.num_blocks * job.num_models), 0);
  }
  static int tiles_needed(int num_models) { return num_models + 3; }

  // Counts what varies, selects among it, and weighs.
  int num_passes() const override { return (selects() ? 1 + (selection_ ? selection_->num_passes() : 3) : 0) + 1; }

  void reduce(int pass, const Block& block, int worker) override {
    const auto b = static_cast<std::size_t>(block.index);
    MagnitudeSelection::Cursor cursor = start(block);
    for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
      const auto deltas = load(block, offset, n, worker);
      float* variance = tiles_.tile(worker, job_.num_models + 1);
      if (pass == last_pass()) {
        if (selects()) keep_selected(deltas, n, worker, cursor);
        for (std::size_t m = 0; m < deltas.size(); ++m) {
          squares_[b * deltas.size() + m] += sum_kernels_.dot(deltas[m], deltas[m], n);
        }
        return;
      }
      variances(deltas, n, variance);
      if (pass == 0) {
        varying_[b] += static_cast<std::uint64_t>(n - std::count(variance, variance + n, 0.0F));
      } else {
        std::fill(variance + n, variance + padded(n), 0.0F);
        selection_->count(pass - 1, 0, block.index, variance, n, worker);
      }
    });
  }

  Partials partials(int pass) override {
    if (pass == last_pass()) return {.sums = squares_};
    return pass == 0 ? Partials{.counts = varying_} : selection_->partials(pass - 1);
  }

  Status finish(int pass) override {
    if (pass == last_pass()) {
      weigh();
    } else if (pass == 0) {
      std::uint64_t varying = 0;
      for (const std::uint64_t count : varying_) varying += count;
      const auto k = topk_ <= 0 ? 0 : static_cast<std::int64_t>(static_cast<double>(varying) * topk_);
      selection_ =
          std::make_unique<MagnitudeSelection>(DType::kF32, blocks_.num_elements, blocks_.num_blocks,
                                               std::vector<RankWindow>{{0, k}}, TiesAtCut::kLowestIndex, pool_);
    } else {
      selection_->finish(pass - 1);
    }
    return {};
  }

  void apply(const Block& block, const Output& output, int worker) override {
    MagnitudeSelection::Cursor cursor = start(block);
    const CombineRule rule{
        .elect = CombineRule::Elect::kMass, .divide = CombineRule::Divide::kWeights, .least_divisor = 1e-6F};
    float* out = tiles_.tile(worker, job_.num_models + 1);
    for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
      const auto deltas = load(block, offset, n, worker);
      if (selects()) keep_selected(deltas, n, worker, cursor);
      combine_kernels_.combine(deltas, weights_, n, rule, tiles_.tile(worker, job_.num_models), out);
      tile_kernels_.store(out, n, output, offset);
    });
  }

 private:
  bool selects() const { return topk_ < 1; }
  int last_pass() const { return num_passes() - 1; }
  MagnitudeSelection::Cursor start(const Block& block) const {
    return selection_ ? selection_->start(0, block.index) : MagnitudeSelection::Cursor();
  }

  std::vector<const float*> load(const Block& block, std::int64_t offset, std::int64_t n, int worker) {
    return load_deltas(tile_kernels_, job_, block, offset, n, tiles_, worker);
  }

  // Zeroes the deltas at positions that are not selected.
  void keep_selected(std::span<const float* const> deltas, std::int64_t n, int worker,
                     MagnitudeSelection::Cursor& cursor) {
    float* variance = tiles_.tile(worker, job_.num_models + 2);
    variances(deltas, n, variance);
    std::fill(variance + n, variance + padded(n), 0.0F);
    selection_->keep(0, cursor, variance, n);
    for (int m = 0; m < job_.num_models; ++m) {
      float* delta = tiles_.tile(worker, m);
      for (std::int64_t i = 0; i < n; ++i) delta[i] = variance[i] != 0 ? delta[i] : 0;
    }
  }

  void weigh() {
    std::vector<double> means;
    double sum = 0;
    for (int m = 0; m < job_.num_models; ++m) {
      double squares = 0;
      for (std::int64_t b = 0; b < blocks_.num_blocks; ++b) {
        squares += squares_[static_cast<std::size_t>(b * job_.num_models + m)];
      }
      means.push_back(squares / static_cast<double>(blocks_.num_elements));
      sum += means.back();
    }
    for (const double mean : means) {
      weights_.push_back(static_cast<float>(sum < 1e-6 ? 1.0 / static_cast<double>(means.size()) : mean / sum));
    }
  }

  const TensorJob& job_;
  WorkerTiles& tiles_;
  CountTablePool& pool_;
  double topk_;
  BlockLayout blocks_;
  std::vector<std::uint64_t> varying_;  // per block: positions where the models differ
  std::unique_ptr<MagnitudeSelection> selection_;
  std::vector<double> squares_;  // [block][model]
  std::vector<float> weights_;
  TileKernels tile_kernels_ = tile_kernels();
  SumKernels sum_kernels_ = sum_kernels();
  CombineKernels combine_kernels_ = combine_kernels();
};

class SceModel final : public ModelMerge {
 public:
  SceModel(std::span<const TensorJob> jobs, int num_workers)
      : num_workers_(num_workers),
        tiles_(num_workers, SceTensor::tiles_needed(most_models(jobs))),
        pool_(num_workers) {}
  Result<std::unique_ptr<TensorMerge>> tensor(const TensorJob& job) override {
    return std::unique_ptr<TensorMerge>(std::make_unique<SceTensor>(job, tiles_, pool_));
  }
  std::int64_t working_bytes(const TensorJob& job) const override {
    const std::int64_t blocks = layout(Pieces::kBlocks, job.shape).num_blocks;
    return WorkerTiles::bytes(num_workers_, SceTensor::tiles_needed(job.num_models)) +
           MagnitudeSelection::working_bytes(DType::kF32, 1, blocks, num_workers_) + blocks * (job.num_models + 1) * 8;
  }

 private:
  int num_workers_;
  WorkerTiles tiles_;
  CountTablePool pool_;
};

Result<std::unique_ptr<ModelMerge>> make(const MethodInfo&, std::span<const TensorJob> jobs, int num_workers) {
  return std::unique_ptr<ModelMerge>(std::make_unique<SceModel>(jobs, num_workers));
}

}  // namespace

std::vector<MethodInfo> sce_methods() {
  return {{.name = "sce",
           .title = "SCE",
           .reference = "https://arxiv.org/abs/2408.07990",
           .parameters = {number("select_topk", 1.0, "share of the positions that vary over the models that is kept"),
                          flag("int8_mask", false, "accepted and without effect, as in mergekit")},
           .make = make}};
}

}  // namespace skein::merge
