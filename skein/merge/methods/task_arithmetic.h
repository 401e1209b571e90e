// The methods on task vectors whose sparsifier looks at one element at a time:
//   task_arithmetic, ties, dare_linear, dare_ties, breadcrumbs, breadcrumbs_ties.
//
//   out = base + lambda * combine_i( weight_i * sparse(model_i - base) )
//
// Task arithmetic arXiv 2212.04089; TIES 2306.01708; DARE 2311.03099; breadcrumbs 2312.06795.
#pragma once

#include <memory>
#include <optional>

#include "skein/merge/kernels/random_mask.h"
#include "skein/merge/kernels/sums.h"
#include "skein/merge/methods/per_tensor.h"
#include "skein/merge/methods/task_rule.h"

namespace skein::merge {

enum class Sparsifier { kNone, kMagnitude, kRandom, kOutliers };

struct TaskMethod {
  Sparsifier sparsifier = Sparsifier::kNone;
  bool elects = false;
};

// A selection over the whole model that a tensor takes its part of.
struct SharedSelection {
  const MagnitudeSelection* selection = nullptr;
  std::int64_t first_block = 0;
  // Set once the sweep that counts it is done; null if no zero sum asks for it.
  const CombineRule::ZeroSign* zero_sign = nullptr;
};

class TaskTensor final : public TensorMerge {
 public:
  TaskTensor(const TensorJob& job, TaskMethod method, TaskRule rule, int num_workers, WorkerTiles& tiles,
             CountTablePool& pool, SharedSelection shared);

  int num_passes() const override;
  void reduce(int pass, const Block& block, int worker) override;
  Partials partials(int pass) override;
  Status finish(int pass) override;
  void apply(const Block& block, const Output& output, int worker) override;

  // The tiles a worker needs.
  static int tiles_needed(int num_models) { return num_models + 2; }
  // Bytes of random masks that are remembered between passes, at most.
  static constexpr std::int64_t kMaskBytes = std::int64_t{16} << 20;
  // How many more of the elements of a block elect + than -, after sparsification.
  std::int64_t majority(const Block& block, int worker);
  // How the ranks of one model's deltas are cut.
  static RankWindow window(const TensorJob& job, const TaskRule& rule, Sparsifier sparsifier, int model_idx,
                           std::int64_t num_elements);

 private:
  enum class Pass { kSelection, kNorms, kMajority };
  struct Cursors {
    std::vector<MagnitudeSelection::Cursor> of_model;
  };
  Pass kind_of(int pass) const;
  const MagnitudeSelection* selection() const { return shared_.selection ? shared_.selection : own_.get(); }
  std::int64_t block_of_selection(const Block& block) const { return block.index + shared_.first_block; }
  void start(const Block& block, Cursors& cursors) const;
  // The random mask of a tile: kept from the pass before, or made anew into `room`.
  const std::uint8_t* mask_bits(const Block& block, std::int64_t offset, std::int64_t n, int model_idx,
                                std::uint8_t* room) const;
  // The sparse delta of one tile, times factor.
  void sparse_delta(const Block& block, std::int64_t offset, std::int64_t n, int model_idx, const float* base,
                    float factor, Cursors& cursors, float* delta) const;
  void load_base(const Block& block, std::int64_t offset, std::int64_t n, float* tile) const;
  void count_norms(const Block& block, int worker);
  void apply_dense(const Block& block, const Output& output, int worker);

  const TensorJob& job_;
  TaskMethod method_;
  TaskRule rule_;
  WorkerTiles& tiles_;
  SharedSelection shared_;
  std::unique_ptr<MagnitudeSelection> own_;
  bool needs_norms_ = false, needs_majority_ = false;
  std::int64_t num_blocks_ = 0;
  std::vector<std::uint64_t> thresholds_;  // per model, of random masks
  std::vector<float> factors_;             // per model
  std::vector<double> norms_;              // [model][block][before, after]
  std::vector<std::uint64_t> balance_;     // per block, two's complement
  // Random masks, so that the last pass need not draw them again; empty for a tensor too large for it.
  std::vector<std::uint8_t> masks_;       // [model][element], one bit each
  std::vector<std::uint8_t> mask_ready_;  // per block
  StreamKey key_;
  TileKernels tile_kernels_ = tile_kernels();
  RandomKernels random_kernels_ = random_kernels();
  CombineKernels combine_kernels_ = combine_kernels();
  SumKernels sum_kernels_ = sum_kernels();
};

}  // namespace skein::merge
