// della, della_linear: arXiv 2406.11617. In every row the deltas are ranked by magnitude; the keep probability runs
// linearly from density - epsilon (the smallest) to density + epsilon (the largest). What is kept is rescaled, then
// joined as in TIES or summed. A 1-D tensor is one row; a row of one element is kept with probability `density`.
#include <algorithm>
#include <bit>
#include <numeric>

#include "skein/base/concat.h"
#include "skein/merge/kernels/random_mask.h"
#include "skein/merge/kernels/select.h"
#include "skein/merge/kernels/sums.h"
#include "skein/merge/methods/methods.h"
#include "skein/merge/methods/per_tensor.h"
#include "skein/merge/methods/task_rule.h"

namespace skein::merge {
namespace {

// Ranks one row at a time: ascending magnitude as rounded to `type`, the lower index first among equals. A radix sort,
// eight bits a round.
class RowRanks {
 public:
  std::span<const std::uint32_t> operator()(const float* delta, std::int64_t n, DType type) {
    const auto size = static_cast<std::size_t>(n);
    const bool half = type == DType::kBF16 || type == DType::kF16;
    keys_.resize(size);
    for (std::size_t i = 0; i < size; ++i) {
      const std::uint32_t bits = std::bit_cast<std::uint32_t>(delta[i]) & 0x7fffffffU;
      keys_[i] = half ? magnitude_key(type, bits) : bits;
    }
    order_.resize(size);
    std::iota(order_.begin(), order_.end(), 0U);
    next_.resize(size);
    for (int shift = 0; shift < (half ? 16 : 32); shift += 8) {
      std::uint32_t starts[257] = {};
      for (const std::uint32_t key : keys_) ++starts[(key >> shift & 0xffU) + 1];
      for (int b = 0; b < 256; ++b) starts[b + 1] += starts[b];
      for (const std::uint32_t i : order_) next_[starts[keys_[i] >> shift & 0xffU]++] = i;
      order_.swap(next_);
    }
    for (std::size_t rank = 0; rank < size; ++rank) next_[order_[rank]] = static_cast<std::uint32_t>(rank);
    return next_;
  }

 private:
  std::vector<std::uint32_t> keys_, order_, next_;
};

// What one worker needs for a block: whole rows of every model.
struct RowRoom {
  RowRanks ranks;
  std::vector<float> base, deltas;
  std::vector<std::uint32_t> numbers;
};

class DellaTensor final : public TensorMerge {
 public:
  DellaTensor(const TensorJob& job, TaskRule rule, std::vector<RowRoom>& rooms)
      : job_(job),
        rule_(std::move(rule)),
        rooms_(rooms),
        blocks_(layout(Pieces::kRows, job.shape)),
        row_(job.shape.empty() ? 1 : job.shape.back()),
        key_(stream_key(job.seed, job.name)),
        factors_(static_cast<std::size_t>(job.num_models), 1.0F) {
    for (int m = 0; m < job.num_models; ++m) needs_norms_ = needs_norms_ || job.parameters->number("density", m) < 1;
    needs_norms_ = needs_norms_ && rule_.rescale == Rescale::kL1;
    if (needs_norms_) norms_.assign(static_cast<std::size_t>(2 * blocks_.num_blocks * job.num_models), 0);
    if (rule_.majority_decides) balance_.assign(static_cast<std::size_t>(blocks_.num_blocks), 0);
  }

  Pieces pieces() const override { return Pieces::kRows; }
  int num_passes() const override { return needs_norms_ + rule_.majority_decides; }

  void reduce(int pass, const Block& block, int worker) override {
    const bool norms = pass == 0 && needs_norms_;
    const auto deltas = sparse_deltas(block, worker, norms);
    if (norms) return;
    std::int64_t balance = 0;
    for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
      balance += combine_kernels_.majority(at(deltas, offset), rule_.weights, n, rule_.combine.elect);
    });
    balance_[static_cast<std::size_t>(block.index)] = static_cast<std::uint64_t>(balance);
  }

  Partials partials(int pass) override {
    return pass == 0 && needs_norms_ ? Partials{.sums = norms_} : Partials{.counts = balance_};
  }

  Status finish(int pass) override {
    if (pass > 0 || !needs_norms_) {
      rule_.combine.zero_sign =
          zero_sign_of(static_cast<std::int64_t>(std::accumulate(balance_.begin(), balance_.end(), std::uint64_t{0})));
      return {};
    }
    for (std::int64_t m = 0; m < job_.num_models; ++m) {
      double before = 0, after = 0;
      for (std::int64_t b = 0; b < blocks_.num_blocks; ++b) {
        before += norms_[static_cast<std::size_t>(2 * (b * job_.num_models + m))];
        after += norms_[static_cast<std::size_t>(2 * (b * job_.num_models + m) + 1)];
      }
      factors_[static_cast<std::size_t>(m)] = l1_factor(before, after);
    }
    return {};
  }

  void apply(const Block& block, const Output& output, int worker) override {
    const auto deltas = sparse_deltas(block, worker, false);
    alignas(64) float out[kTile];
    for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
      combine_kernels_.combine(at(deltas, offset), rule_.weights, n, rule_.combine,
                               rooms_[static_cast<std::size_t>(worker)].base.data() + offset, out);
      tile_kernels_.store(out, n, output, offset);
    });
  }

 private:
  std::vector<const float*> at(std::vector<const float*> deltas, std::int64_t offset) const {
    for (const float*& delta : deltas) delta += offset;
    return deltas;
  }

  // The block's deltas of all models, masked and rescaled; with `norms` their L1 norms are noted on the way.
  std::vector<const float*> sparse_deltas(const Block& block, int worker, bool norms) {
    RowRoom& room = rooms_[static_cast<std::size_t>(worker)];
    const std::int64_t stride = padded(block.count);
    room.base.resize(static_cast<std::size_t>(stride));
    room.deltas.resize(static_cast<std::size_t>(stride * job_.num_models));
    for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
      tile_kernels_.load(block.base, offset, n, room.base.data() + offset);
    });
    std::vector<const float*> deltas;
    for (int m = 0; m < job_.num_models; ++m) {
      float* delta = room.deltas.data() + m * stride;
      for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
        tile_kernels_.load_delta(block.models[static_cast<std::size_t>(m)], offset, n, room.base.data() + offset,
                                 delta + offset);
      });
      double* sums = norms ? norms_.data() + 2 * (block.index * job_.num_models + m) : nullptr;
      if (norms) sums[0] = absolute(block, delta);
      mask(block, m, room, delta);
      if (norms) sums[1] = absolute(block, delta);
      deltas.push_back(delta);
    }
    return deltas;
  }

  double absolute(const Block& block, const float* delta) const {
    double sum = 0;
    for_each_tile(block, [&](std::int64_t offset, std::int64_t n) { sum += sum_kernels_.absolute(delta + offset, n); });
    return sum;
  }

  void mask(const Block& block, int model_idx, RowRoom& room, float* delta) const {
    const double density = job_.parameters->number("density", model_idx);
    const double epsilon = job_.parameters->number("epsilon", model_idx);
    if (density >= 1) return;
    if (density <= 0) {
      std::fill_n(delta, block.count, 0.0F);
      return;
    }
    const float factor = factors_[static_cast<std::size_t>(model_idx)];
    room.numbers.resize(static_cast<std::size_t>(row_));
    for (std::int64_t start = 0; start < block.count; start += row_) {
      float* row = delta + start;
      random_kernels_.numbers(key_, model_idx, block.first + start, row_, room.numbers.data());
      const auto ranks = room.ranks(row, row_, job_.working_dtype);
      const double step = row_ > 1 ? 2 * epsilon / static_cast<double>(row_ - 1) : 0;
      const double lowest = row_ > 1 ? density - epsilon : density;
      for (std::int64_t i = 0; i < row_; ++i) {
        const double p = lowest + step * ranks[static_cast<std::size_t>(i)];
        const bool kept = room.numbers[static_cast<std::size_t>(i)] < mask_threshold(p);
        const float scale = rule_.rescale == Rescale::kExpectation ? static_cast<float>(1 / p) : factor;
        row[i] = kept ? scale * row[i] : 0;
      }
    }
  }

  const TensorJob& job_;
  TaskRule rule_;
  std::vector<RowRoom>& rooms_;
  BlockLayout blocks_;
  std::int64_t row_;
  StreamKey key_;
  bool needs_norms_ = false;
  std::vector<float> factors_;
  std::vector<double> norms_;           // [block][model][before, after]
  std::vector<std::uint64_t> balance_;  // per block
  TileKernels tile_kernels_ = tile_kernels();
  RandomKernels random_kernels_ = random_kernels();
  CombineKernels combine_kernels_ = combine_kernels();
  SumKernels sum_kernels_ = sum_kernels();
};

class DellaModel final : public ModelMerge {
 public:
  DellaModel(bool elects, int num_workers) : elects_(elects), rooms_(static_cast<std::size_t>(num_workers)) {}

  Result<std::unique_ptr<TensorMerge>> tensor(const TensorJob& job) override {
    SKEIN_ASSIGN(TaskRule rule, task_rule(job, elects_));
    return std::unique_ptr<TensorMerge>(std::make_unique<DellaTensor>(job, std::move(rule), rooms_));
  }
  std::int64_t working_bytes(const TensorJob& job) const override {
    const BlockLayout blocks = layout(Pieces::kRows, job.shape);
    const std::int64_t row = job.shape.empty() ? 1 : job.shape.back();
    return static_cast<std::int64_t>(rooms_.size()) * (blocks.block_elements * 4 * (job.num_models + 1) + row * 16) +
           blocks.num_blocks * (2 * job.num_models + 1) * 8;
  }

 private:
  bool elects_;
  std::vector<RowRoom> rooms_;
};

template <bool kElects>
Result<std::unique_ptr<ModelMerge>> make(const MethodInfo& info, std::span<const TensorJob> jobs, int num_workers) {
  for (const TensorJob& job : jobs) {
    SKEIN_ASSIGN(const TaskRule rule, task_rule(job, kElects));
    for (int m = 0; m < job.num_models; ++m) {
      const double density = job.parameters->number("density", m), epsilon = job.parameters->number("epsilon", m);
      if (density >= 1 || density <= 0 || (density - epsilon > 0 && density + epsilon < 1)) continue;
      return Error{concat(info.name, ": ", printable(job.name), ": density ", density, " and epsilon ", epsilon,
                          ": density - epsilon must be above 0 and density + epsilon below 1"),
                   ErrorKind::kUsage};
    }
  }
  return std::unique_ptr<ModelMerge>(std::make_unique<DellaModel>(kElects, num_workers));
}

}  // namespace

std::vector<MethodInfo> della_methods() {
  std::vector<MethodInfo> methods;
  for (const bool elects : {true, false}) {
    std::vector<ParameterSpec> parameters = task_parameters(elects, true, true, elects);
    parameters.push_back(per_model_number("epsilon", 0.15, "half the range of keep probabilities within a row"));
    parameters.push_back(choice("rescale_norm", {"l1", "expectation"},
                                "rescale to the L1 norm of the full delta, or each entry by 1 / its probability"));
    methods.push_back({.name = elects ? "della" : "della_linear",
                       .title = elects ? "DELLA" : "Linear DELLA",
                       .reference = "https://arxiv.org/abs/2406.11617",
                       .uses_random_numbers = true,
                       .parameters = std::move(parameters),
                       .make = elects ? make<true> : make<false>});
  }
  return methods;
}

}  // namespace skein::merge
