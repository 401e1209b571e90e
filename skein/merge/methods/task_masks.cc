// Methods that find, per model and element, a mask.
//   emr        arXiv 2405.17461. One delta for all: tau = elected sign * the largest agreeing |tau_e|. Per model a mask
//              M_e = [tau_e tau > 0] and a scale lambda_e = sum |tau_e| / sum |M_e tau| over the whole model, both
//              written beside the merged weights: model e is about base + lambda_e M_e (merged - base).
//   consensus  Consensus task arithmetic with TALL masks, arXiv 2405.07813. m_e = [|tau_e| >= lambda_e |tau - tau_e|]
//              with tau = sum tau_e; the merged delta is tau where at least `min_tasks` of the masks are set.
#include <algorithm>
#include <cmath>

#include "skein/base/concat.h"
#include "skein/merge/kernels/sums.h"
#include "skein/merge/methods/methods.h"
#include "skein/merge/methods/per_tensor.h"

namespace skein::merge {
namespace {

// The deltas of a tile, in the worker's tiles 0 .. num_models - 1, the base in the one after.
struct DeltaTiles {
  WorkerTiles* tiles;
  TileKernels kernels = tile_kernels();

  float* base(const TensorJob& job, int worker) const { return tiles->tile(worker, job.num_models); }
  std::vector<const float*> load(const TensorJob& job, const Block& block, std::int64_t offset, std::int64_t n,
                                 int worker) const {
    kernels.load(block.base, offset, n, base(job, worker));
    std::vector<const float*> deltas;
    for (int m = 0; m < job.num_models; ++m) {
      float* delta = tiles->tile(worker, m);
      kernels.load_delta(block.models[static_cast<std::size_t>(m)], offset, n, base(job, worker), delta);
      const auto weight = static_cast<float>(job.parameters->number("weight", m));
      if (weight != 1) kernels.scale(delta, n, weight);
      deltas.push_back(delta);
    }
    return deltas;
  }
};

// set(i) of n elements to the bits from place `first` on, a multiple of 8; the lowest bit of a byte comes first.
template <class Set>
void write_bits(std::byte* to, std::int64_t first, std::int64_t n, const Set& set) {
  for (std::int64_t i = 0; i < n; i += 8) {
    unsigned bits = 0;
    for (std::int64_t j = i; j < std::min(i + 8, n); ++j) bits |= (set(j) ? 1U : 0U) << (j - i);
    to[(first + i) / 8] = static_cast<std::byte>(bits);
  }
}

std::vector<ExtraOutput> masks_of(const TensorJob& job, std::string_view stem) {
  const std::int64_t elements = layout(Pieces::kBlocks, job.shape).num_elements;
  std::vector<ExtraOutput> outputs;
  for (int m = 0; m < job.num_models; ++m) {
    outputs.push_back({.file = concat(stem, "_masks_", m),
                       .name = job.name,
                       .dtype = DType::kU8,
                       .shape = {(elements + 7) / 8},
                       .bits_per_element = 1});
  }
  return outputs;
}

// ---- emr ------------------------------------------------------------------------------------------------------------

bool agrees(float delta, float tau) { return (delta > 0 && tau > 0) || (delta < 0 && tau < 0); }

// tau at one element: nothing where the deltas cancel exactly.
float unified(const std::vector<const float*>& deltas, std::int64_t i) {
  float sum = 0, largest = 0;
  for (const float* delta : deltas) sum += delta[i];
  for (const float* delta : deltas) {
    if (agrees(delta[i], sum)) {
      largest = std::max(largest, std::abs(delta[i]));
    }
  }
  return sum > 0 ? largest : sum < 0 ? -largest : 0;
}

class EmrModel final : public ModelMerge {
 public:
  EmrModel(std::span<const TensorJob> jobs, int num_workers)
      : num_workers_(num_workers),
        num_models_(jobs.empty() ? 0 : jobs[0].num_models),
        worker_tiles_(num_workers, most_models(jobs) + 2),
        tiles_{&worker_tiles_} {
    for (const TensorJob& job : jobs) {
      first_blocks_.push_back(num_blocks_);
      num_blocks_ += layout(Pieces::kBlocks, job.shape).num_blocks;
    }
    sums_.assign(static_cast<std::size_t>(num_blocks_ * num_models_ * 2), 0);
  }

  int num_sweeps() const override { return 1; }

  void reduce(int, const TensorJob& job, const Block& block, int worker) override {
    double* sums = sums_.data() + (first_blocks_[static_cast<std::size_t>(job.index)] + block.index) * num_models_ * 2;
    float* kept = worker_tiles_.tile(worker, job.num_models + 1);
    for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
      const auto deltas = tiles_.load(job, block, offset, n, worker);
      for (std::size_t m = 0; m < deltas.size(); ++m) {
        std::fill_n(kept, padded(n), 0.0F);
        for (std::int64_t i = 0; i < n; ++i) {
          const float tau = unified(deltas, i);
          if (agrees(deltas[m][i], tau)) kept[i] = tau;
        }
        sums[2 * m] += sum_kernels_.absolute(deltas[m], n);
        sums[2 * m + 1] += sum_kernels_.absolute(kept, n);
      }
    });
  }

  Partials partials(int) override { return {.sums = sums_}; }

  Status finish(int) override {
    for (int m = 0; m < num_models_; ++m) {
      double all = 0, kept = 0;
      for (std::int64_t b = 0; b < num_blocks_; ++b) {
        const double* sums = sums_.data() + (b * num_models_ + m) * 2;
        all += sums[0];
        kept += sums[1];
      }
      scales_.push_back(kept > 0 ? static_cast<float>(all / kept) : 0.0F);
    }
    return {};
  }

  Result<std::unique_ptr<TensorMerge>> tensor(const TensorJob& job) override {
    return std::unique_ptr<TensorMerge>(std::make_unique<Tensor>(job, *this));
  }

  std::vector<ExtraOutput> extra_outputs(const TensorJob& job) const override { return masks_of(job, "emr"); }
  std::vector<SummaryTensor> summary_tensors() const override {
    std::vector<SummaryTensor> tensors;
    for (int m = 0; m < num_models_; ++m) {
      tensors.push_back({concat("emr_masks_", m), "scale", {scales_[static_cast<std::size_t>(m)]}});
    }
    return tensors;
  }

  std::int64_t working_bytes(const TensorJob& job) const override {
    return WorkerTiles::bytes(num_workers_, job.num_models + 2) + num_blocks_ * num_models_ * 16;
  }

 private:
  class Tensor final : public TensorMerge {
   public:
    Tensor(const TensorJob& job, EmrModel& model) : job_(job), model_(model) {}

    void apply(const Block& block, const Output& output, int worker) override {
      const auto lambda = static_cast<float>(job_.parameters->number("lambda"));
      float* tau = model_.worker_tiles_.tile(worker, job_.num_models + 1);
      for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
        const auto deltas = model_.tiles_.load(job_, block, offset, n, worker);
        for (std::int64_t i = 0; i < n; ++i) tau[i] = unified(deltas, i);
        for (std::size_t m = 0; m < output.extras.size(); ++m) {
          write_bits(output.extras[m], offset, n, [&](std::int64_t i) { return agrees(deltas[m][i], tau[i]); });
        }
        const float* base = model_.tiles_.base(job_, worker);
        for (std::int64_t i = 0; i < n; ++i) tau[i] = base[i] + lambda * tau[i];
        model_.tiles_.kernels.store(tau, n, output, offset);
      });
    }

   private:
    const TensorJob& job_;
    EmrModel& model_;
  };

  int num_workers_, num_models_;
  WorkerTiles worker_tiles_;
  DeltaTiles tiles_;
  SumKernels sum_kernels_ = sum_kernels();
  std::vector<std::int64_t> first_blocks_;
  std::int64_t num_blocks_ = 0;
  std::vector<double> sums_;   // [block of the model][model][all, kept]
  std::vector<float> scales_;  // per model
};

Result<std::unique_ptr<ModelMerge>> make_emr(const MethodInfo&, std::span<const TensorJob> jobs, int num_workers) {
  for (const TensorJob& job : jobs) {
    if (job.num_models == jobs[0].num_models) continue;
    return Error{concat("emr: ", printable(job.name), " is not in all models, but a mask is needed of every one")};
  }
  return std::unique_ptr<ModelMerge>(std::make_unique<EmrModel>(jobs, num_workers));
}

// ---- consensus ------------------------------------------------------------------------------------------------------

class ConsensusModel final : public ModelMerge {
 public:
  ConsensusModel(std::span<const TensorJob> jobs, int num_workers)
      : num_workers_(num_workers), worker_tiles_(num_workers, most_models(jobs) + 2), tiles_{&worker_tiles_} {}

  Result<std::unique_ptr<TensorMerge>> tensor(const TensorJob& job) override {
    return std::unique_ptr<TensorMerge>(std::make_unique<Tensor>(job, *this));
  }
  std::vector<ExtraOutput> extra_outputs(const TensorJob& job) const override {
    return job.parameters->flag("write_masks") ? masks_of(job, "tall") : std::vector<ExtraOutput>();
  }
  std::int64_t working_bytes(const TensorJob& job) const override {
    return WorkerTiles::bytes(num_workers_, job.num_models + 2);
  }

 private:
  class Tensor final : public TensorMerge {
   public:
    Tensor(const TensorJob& job, ConsensusModel& model) : job_(job), model_(model) {
      for (int m = 0; m < job.num_models; ++m) {
        bounds_.push_back(static_cast<float>(job.parameters->number("mask_lambda", m)));
      }
    }

    void apply(const Block& block, const Output& output, int worker) override {
      const auto lambda = static_cast<float>(job_.parameters->number("lambda"));
      const double least = job_.parameters->number("min_tasks");
      float* tau = model_.worker_tiles_.tile(worker, job_.num_models + 1);
      for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
        const auto deltas = model_.tiles_.load(job_, block, offset, n, worker);
        const auto wanted = [&](std::size_t m, std::int64_t i) {
          return std::abs(deltas[m][i]) >= bounds_[m] * std::abs(tau[i] - deltas[m][i]);
        };
        std::fill_n(tau, padded(n), 0.0F);
        for (const float* delta : deltas) {
          for (std::int64_t i = 0; i < n; ++i) tau[i] += delta[i];
        }
        for (std::size_t m = 0; m < output.extras.size(); ++m) {
          write_bits(output.extras[m], offset, n, [&](std::int64_t i) { return wanted(m, i); });
        }
        const float* base = model_.tiles_.base(job_, worker);
        for (std::int64_t i = 0; i < n; ++i) {
          int tasks = 0;
          for (std::size_t m = 0; m < deltas.size(); ++m) tasks += wanted(m, i) ? 1 : 0;
          tau[i] = tasks >= least ? base[i] + lambda * tau[i] : base[i];
        }
        model_.tiles_.kernels.store(tau, n, output, offset);
      });
    }

   private:
    const TensorJob& job_;
    ConsensusModel& model_;
    std::vector<float> bounds_;
  };

  int num_workers_;
  WorkerTiles worker_tiles_;
  DeltaTiles tiles_;
};

Result<std::unique_ptr<ModelMerge>> make_consensus(const MethodInfo&, std::span<const TensorJob> jobs,
                                                   int num_workers) {
  return std::unique_ptr<ModelMerge>(std::make_unique<ConsensusModel>(jobs, num_workers));
}

}  // namespace

std::vector<MethodInfo> task_mask_methods() {
  const ParameterSpec weight = per_model_number("weight", 1.0, "factor of this model's delta");
  const ParameterSpec lambda = number("lambda", 1.0, "factor of the merged delta");
  return {
      {.name = "emr",
       .title = "EMR: elect, mask, rescale",
       .reference = "https://arxiv.org/abs/2405.17461",
       .parameters = {weight, lambda},
       .make = make_emr},
      {.name = "consensus",
       .title = "Consensus task arithmetic (TALL masks)",
       .reference = "https://arxiv.org/abs/2405.07813",
       .min_models = 2,
       .parameters = {weight, lambda,
                      per_model_number("mask_lambda", 0.4, "a larger value leaves fewer elements in this model's mask"),
                      number("min_tasks", 2, "masks that must hold an element for it to be merged"),
                      flag("write_masks", false, "write every model's mask beside the weights")},
       .make = make_consensus},
  };
}

}  // namespace skein::merge
