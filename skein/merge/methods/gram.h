// Dot products of all pairs of a tensor's inputs (or of their deltas from a base), per block and in f64.
//
// Whatever stays in the span of its inputs (slerp, Karcher means, model stock) needs only this N x N matrix and ends as
// a linear combination: one reading pass, a little algebra on coefficients, one writing pass.
#pragma once

#include <vector>

#include "skein/merge/kernels/sums.h"
#include "skein/merge/methods/per_tensor.h"

namespace skein::merge {

// Row-major N x N, symmetric.
using Gram = std::vector<double>;

class GramSums {
 public:
  // `groups` matrices per block (1, or one per row of a block that holds whole rows).
  GramSums(int num_models, bool from_base, std::int64_t num_groups)
      : num_models_(num_models),
        from_base_(from_base),
        num_pairs_(num_models * (num_models + 1) / 2),
        sums_(static_cast<std::size_t>(num_groups * num_pairs_)) {}

  // Adds elements [offset, offset + n) of the block to a group. Uses tiles 0 .. num_models of the worker.
  void add(const Block& block, std::int64_t offset, std::int64_t n, std::int64_t group, WorkerTiles& tiles,
           int worker) {
    float* base = tiles.tile(worker, num_models_);
    if (from_base_) tile_kernels_.load(block.base, offset, n, base);
    for (int m = 0; m < num_models_; ++m) {
      const Piece& piece = block.models[static_cast<std::size_t>(m)];
      float* tile = tiles.tile(worker, m);
      from_base_ ? tile_kernels_.load_delta(piece, offset, n, base, tile) : tile_kernels_.load(piece, offset, n, tile);
    }
    double* sums = sums_.data() + group * num_pairs_;
    for (int a = 0; a < num_models_; ++a) {
      for (int b = a; b < num_models_; ++b) {
        *sums++ += sum_kernels_.dot(tiles.tile(worker, a), tiles.tile(worker, b), n);
      }
    }
  }

  std::span<double> partials() { return sums_; }

  // The sum of groups [first, last), in order.
  Gram total(std::int64_t first, std::int64_t last) const {
    std::vector<double> pairs(static_cast<std::size_t>(num_pairs_));
    for (std::int64_t group = first; group < last; ++group) {
      for (std::size_t p = 0; p < pairs.size(); ++p)
        pairs[p] += sums_[static_cast<std::size_t>(group) * pairs.size() + p];
    }
    const auto n = static_cast<std::size_t>(num_models_);
    Gram gram(n * n);
    std::size_t p = 0;
    for (std::size_t a = 0; a < n; ++a) {
      for (std::size_t b = a; b < n; ++b) gram[a * n + b] = gram[b * n + a] = pairs[p++];
    }
    return gram;
  }

 private:
  int num_models_;
  bool from_base_;
  std::int64_t num_pairs_;
  std::vector<double> sums_;  // [group][pair]
  TileKernels tile_kernels_ = tile_kernels();
  SumKernels sum_kernels_ = sum_kernels();
};

// out = base_factor * base + sum over the models of c_i * (model_i, or model_i - base)
struct Combination {
  std::vector<float> coefficients;
  float base_factor = 0;  // of a base that is present
  bool from_base = false;
};

// Uses tiles 0 and 1 of the worker.
inline void write_combination(const Combination& combination, const Block& block, std::int64_t offset, std::int64_t n,
                              const Output& output, const TileKernels& kernels, WorkerTiles& tiles, int worker) {
  float* sum = tiles.tile(worker, 0);
  float* base = tiles.tile(worker, 1);
  const bool has_base = block.base.data != nullptr && (combination.from_base || combination.base_factor != 0);
  if (has_base) kernels.load(block.base, offset, n, base);
  std::fill_n(sum, padded(n), 0.0F);
  for (std::size_t m = 0; m < combination.coefficients.size(); ++m) {
    const float c = combination.coefficients[m];
    if (combination.from_base) {
      kernels.add_scaled_delta(block.models[m], offset, n, base, c, sum);
    } else {
      kernels.add_scaled(block.models[m], offset, n, c, sum);
    }
  }
  if (has_base && combination.base_factor == 1) {
    kernels.add(sum, n, base);
  } else if (has_base && combination.base_factor != 0) {
    kernels.scale(base, n, combination.base_factor);
    kernels.add(sum, n, base);
  }
  kernels.store(sum, n, output, offset);
}

// One reading pass for the Gram matrix, `solve` for the coefficients, one writing pass. Per tensor or per row.
class SpanTensor : public TensorMerge {
 public:
  SpanTensor(const TensorJob& job, int num_inputs, bool from_base, bool by_rows, WorkerTiles& tiles)
      : job_(job),
        tiles_(tiles),
        by_rows_(by_rows),
        blocks_(layout(pieces(), job.shape)),
        row_(job.shape.empty() ? 1 : job.shape.back()),
        num_groups_(by_rows ? (row_ == 0 ? 0 : blocks_.num_elements / row_) : blocks_.num_blocks),
        gram_(num_inputs, from_base, num_groups_) {}

  static std::int64_t working_bytes(const TensorJob& job, int num_inputs, bool by_rows) {
    const BlockLayout blocks = layout(Pieces::kBlocks, job.shape);
    const std::int64_t row = job.shape.empty() || job.shape.back() == 0 ? 1 : job.shape.back();
    const std::int64_t groups = by_rows ? blocks.num_elements / row : blocks.num_blocks;
    return groups * (num_inputs * (num_inputs + 1) * 4 + (by_rows ? num_inputs * 4 + 64 : 0));
  }

  Pieces pieces() const override { return by_rows_ ? Pieces::kRows : Pieces::kBlocks; }
  int num_passes() const override { return 1; }
  Partials partials(int) override { return {.sums = gram_.partials()}; }

  void reduce(int, const Block& block, int worker) override {
    for_each_run(block, [&](std::int64_t offset, std::int64_t n, std::int64_t group) {
      gram_.add(inputs_of(block), offset, n, group, tiles_, worker);
    });
  }

  Status finish(int) override {
    const std::int64_t last = by_rows_ ? num_groups_ : 1;
    for (std::int64_t group = 0; group < last; ++group) {
      SKEIN_ASSIGN(Combination combination,
                   solve(by_rows_ ? gram_.total(group, group + 1) : gram_.total(0, num_groups_)));
      combinations_.push_back(std::move(combination));
    }
    return {};
  }

  void apply(const Block& block, const Output& output, int worker) override {
    for_each_run(block, [&](std::int64_t offset, std::int64_t n, std::int64_t group) {
      const Combination& combination = combinations_[by_rows_ ? static_cast<std::size_t>(group) : 0];
      write_combination(combination, inputs_of(block), offset, n, output, kernels_, tiles_, worker);
    });
  }

 protected:
  virtual Result<Combination> solve(const Gram& gram) const = 0;
  // The block with the inputs the Gram matrix is about.
  virtual Block inputs_of(const Block& block) const { return block; }

  const TensorJob& job_;

 private:
  // Tiles that do not cross a row where rows count.
  template <class Body>
  void for_each_run(const Block& block, const Body& body) const {
    const std::int64_t run = by_rows_ ? row_ : block.count;
    for (std::int64_t start = 0; start < block.count; start += run) {
      const std::int64_t group = by_rows_ ? (block.first + start) / row_ : block.index;
      for (std::int64_t offset = start; offset < start + run; offset += kTile) {
        body(offset, std::min(kTile, start + run - offset), group);
      }
    }
  }

  WorkerTiles& tiles_;
  bool by_rows_;
  BlockLayout blocks_;
  std::int64_t row_, num_groups_;
  GramSums gram_;
  std::vector<Combination> combinations_;
  TileKernels kernels_ = tile_kernels();
};

}  // namespace skein::merge
