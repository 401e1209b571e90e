// What most methods share: no sweeps, one object per tensor, and tiles for each worker.
#pragma once

#include <memory>
#include <vector>

#include "skein/base/check.h"
#include "skein/merge/kernels/tiles.h"
#include "skein/merge/method.h"

namespace skein::merge {

// Tiles of kTile floats, aligned to cache lines, apart for every worker. Contents do not last between blocks.
class WorkerTiles {
 public:
  WorkerTiles(int num_workers, int tiles_per_worker)
      : tiles_per_worker_(tiles_per_worker),
        memory_(new (std::align_val_t{
            64}) float[static_cast<std::size_t>(num_workers) * static_cast<std::size_t>(tiles_per_worker) * kTile]) {}

  float* tile(int worker, int tile_idx) {
    SKEIN_CHECK(tile_idx < tiles_per_worker_);
    return memory_.get() + (static_cast<std::int64_t>(worker) * tiles_per_worker_ + tile_idx) * kTile;
  }
  static std::int64_t bytes(int num_workers, int tiles_per_worker) {
    return static_cast<std::int64_t>(num_workers) * tiles_per_worker * kTile * 4;
  }

 private:
  struct Free {
    void operator()(float* memory) const { ::operator delete[](memory, std::align_val_t{64}); }
  };
  int tiles_per_worker_;
  std::unique_ptr<float[], Free> memory_;
};

// body(offset in the block, count) for the tiles of a block.
template <class Body>
void for_each_tile(const Block& block, const Body& body) {
  for (std::int64_t offset = 0; offset < block.count; offset += kTile) {
    body(offset, std::min(kTile, block.count - offset));
  }
}

// The deltas of all models from the base, each in the worker's tile of the model's number; the base in the tile behind.
inline std::vector<const float*> load_deltas(const TileKernels& kernels, const TensorJob& job, const Block& block,
                                             std::int64_t offset, std::int64_t n, WorkerTiles& tiles, int worker) {
  float* base = tiles.tile(worker, job.num_models);
  kernels.load(block.base, offset, n, base);
  std::vector<const float*> deltas;
  for (int m = 0; m < job.num_models; ++m) {
    float* delta = tiles.tile(worker, m);
    kernels.load_delta(block.models[static_cast<std::size_t>(m)], offset, n, base, delta);
    deltas.push_back(delta);
  }
  return deltas;
}

// What a per-tensor method is given beside its job.
struct Workshop {
  int num_workers = 1;
  WorkerTiles* tiles = nullptr;
};

inline int most_models(std::span<const TensorJob> jobs) {
  int most = 0;
  for (const TensorJob& job : jobs) most = std::max(most, job.num_models);
  return most;
}

// A ModelMerge of objects `Tensor`, which has
//   static Result<std::unique_ptr<TensorMerge>> make(const TensorJob&, const Workshop&);
//   static constexpr int kExtraTiles;                        // beyond one per model
//   static std::int64_t working_bytes(const TensorJob&, int num_workers);  // beyond the tiles
template <class Tensor>
class PerTensorMerge final : public ModelMerge {
 public:
  PerTensorMerge(std::span<const TensorJob> jobs, int num_workers)
      : num_workers_(num_workers),
        tiles_per_worker_(most_models(jobs) + Tensor::kExtraTiles),
        tiles_(num_workers, tiles_per_worker_) {}

  Result<std::unique_ptr<TensorMerge>> tensor(const TensorJob& job) override {
    return Tensor::make(job, Workshop{num_workers_, &tiles_});
  }
  std::int64_t working_bytes(const TensorJob& job) const override {
    return WorkerTiles::bytes(num_workers_, tiles_per_worker_) + Tensor::working_bytes(job, num_workers_);
  }

  static Result<std::unique_ptr<ModelMerge>> make(const MethodInfo&, std::span<const TensorJob> jobs, int num_workers) {
    return std::unique_ptr<ModelMerge>(std::make_unique<PerTensorMerge>(jobs, num_workers));
  }

 private:
  int num_workers_;
  int tiles_per_worker_;
  WorkerTiles tiles_;
};

}  // namespace skein::merge
