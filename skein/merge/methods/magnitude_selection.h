// Keeps, per model, the deltas of certain ranks by magnitude: all but the `skip` largest, `take` of them. Exact,
// without sorting: a histogram of the magnitudes' bits (a second, finer one for f32) gives the magnitude at either cut
// and how many lie above it; where a cut goes through equal magnitudes, the elements are counted block by block and the
// lowest flat index wins.
//
// The scope of one selection is a tensor or a whole model: any sequence of blocks that is numbered through.
//   passes: coarse histogram, [fine histogram: f32], [ties per block: if a cut needs it and there is more than one
//   block]
//
// Thread-safety: count() and keep() for different workers at once.
#pragma once

#include <cstdint>
#include <vector>

#include "skein/base/dtype.h"
#include "skein/merge/kernels/select.h"
#include "skein/merge/method.h"
#include "skein/merge/methods/count_table.h"

namespace skein::merge {

struct RankWindow {
  std::int64_t skip = 0;
  std::int64_t take = 0;  // 0: nothing is kept; everything: skip 0 and take >= all elements
};

// Elements equal to the magnitude at the lower cut.
enum class TiesAtCut { kLowestIndex, kKeepAll, kDropAll };

class MagnitudeSelection {
 public:
  // One window per model. Elements are compared as rounded to `type`.
  MagnitudeSelection(DType type, std::int64_t num_elements, std::int64_t num_blocks, std::vector<RankWindow> windows,
                     TiesAtCut ties, CountTablePool& pool);

  int num_passes() const { return static_cast<int>(passes_.size()); }
  // Whether the pass has to see this model.
  bool wants(int model_idx) const { return !cuts_[static_cast<std::size_t>(model_idx)].trivial; }
  void count(int pass, int model_idx, std::int64_t block_idx, const float* delta, std::int64_t n, int worker);
  Partials partials(int pass);
  void finish(int pass);

  // Where a block stands among the ties; made anew for each (block, model), then moved along its tiles in order.
  struct Cursor {
    std::int64_t seen[2] = {0, 0};
  };
  Cursor start(int model_idx, std::int64_t block_idx) const;
  // Zeroes what is not kept.
  void keep(int model_idx, Cursor& cursor, float* delta, std::int64_t n) const;

  // The magnitude's bits at a cut (0: of the largest kept, 1: of the smallest kept), f32 selections only.
  std::uint32_t cut_bits(int model_idx, int cut) const {
    return cuts_[static_cast<std::size_t>(model_idx)].at_cut[cut];
  }

  static std::int64_t working_bytes(DType type, int num_models, std::int64_t num_blocks, int num_workers);

 private:
  enum class Pass { kCoarse, kFine, kTies };
  // Equal magnitudes a cut goes through: of those with bits in [lo, hi), in flat order, [skip, skip + take) are kept.
  struct Run {
    std::uint32_t lo = 0, hi = 0;
    std::int64_t skip = 0, take = 0;
    std::int64_t ties_row = -1;  // in ties_; -1: nothing to count
    bool partial() const { return hi > lo; }
  };
  struct Cuts {
    bool trivial = false;  // all or nothing
    RankWindow window;
    std::uint32_t bucket[2] = {0, 0};  // coarse keys of the upper and the lower cut
    std::uint32_t at_cut[2] = {0, 0};
    std::int64_t above[2] = {0, 0};  // elements above the bucket, then above the run
    std::uint32_t lo = 0, hi = 0;    // bits in [lo, hi) are kept
    Run runs[2];                     // upper, lower
  };

  void find_buckets(int model_idx);
  void find_fine(int model_idx);
  void set_cut(Cuts& cuts, const std::uint32_t lo[2], const std::uint32_t hi[2], const std::int64_t count[2]);
  void plan_ties();
  void keep_two_runs(const Cuts& cuts, Cursor& cursor, float* delta, std::int64_t n) const;
  // Zeroes those of the run's elements, the first of which is number `first`, that are not taken.
  static void drop_ties(const Run& run, std::int64_t first, float* delta, std::int64_t n);

  DType type_;
  std::int64_t num_blocks_;
  TiesAtCut ties_rule_;
  std::vector<Pass> passes_;
  std::vector<Cuts> cuts_;
  CountTablePool* pool_;
  CountTablePool::Lease coarse_, fine_;
  std::vector<std::uint64_t> ties_;  // [row][block]: ties in the block; after finish: before the block
  SelectKernels kernels_ = select_kernels();
};

}  // namespace skein::merge
