#include "skein/merge/methods/task_arithmetic.h"

#include <algorithm>
#include <array>

#include "skein/base/concat.h"

namespace skein::merge {

namespace {
constexpr int kBaseTile = 0, kOutTile = 1, kDeltaTiles = 2;
}  // namespace

RankWindow TaskTensor::window(const TensorJob& job, const TaskRule& rule, Sparsifier sparsifier, int model_idx,
                              std::int64_t num_elements) {
  const double density = job.parameters->number("density", model_idx);
  if (sparsifier == Sparsifier::kMagnitude) return {0, rule.kept(density, num_elements)};
  const std::int64_t kept = density >= 1
                                ? num_elements
                                : static_cast<std::int64_t>(std::max(density, 0.0) * static_cast<double>(num_elements));
  // Breadcrumbs: the largest gamma n go, unless fewer than that are to go at all; then the smallest.
  const auto top =
      static_cast<std::int64_t>(job.parameters->number("gamma", model_idx) * static_cast<double>(num_elements));
  return {std::clamp<std::int64_t>(top, 0, num_elements - kept), kept};
}

TaskTensor::TaskTensor(const TensorJob& job, TaskMethod method, TaskRule rule, int num_workers, WorkerTiles& tiles,
                       CountTablePool& pool, SharedSelection shared)
    : job_(job),
      method_(method),
      rule_(std::move(rule)),
      tiles_(tiles),
      shared_(shared),
      key_(stream_key(job.seed, job.name)) {
  const BlockLayout blocks = layout(Pieces::kBlocks, job.shape);
  num_blocks_ = blocks.num_blocks;
  const auto num_models = static_cast<std::size_t>(job.num_models);
  factors_.assign(num_models, 1.0F);
  bool sparse = false;
  std::vector<RankWindow> windows;
  for (int m = 0; m < job.num_models; ++m) {
    if (method.sparsifier == Sparsifier::kNone) break;
    const double density = job.parameters->number("density", m);
    sparse = sparse || density < 1;
    if (method.sparsifier == Sparsifier::kRandom) {
      thresholds_.push_back(mask_threshold(density));
      if (rule_.rescale == Rescale::kExpectation && density > 0 && density < 1) {
        factors_[static_cast<std::size_t>(m)] = static_cast<float>(1 / density);
      }
    } else if (shared.selection == nullptr) {
      windows.push_back(window(job, rule_, method.sparsifier, m, blocks.num_elements));
    }
  }
  if (!windows.empty()) {
    own_ = std::make_unique<MagnitudeSelection>(job.working_dtype, blocks.num_elements, num_blocks_, std::move(windows),
                                                rule_.ties, pool);
  }
  needs_norms_ = sparse && rule_.rescale == Rescale::kL1;
  if (needs_norms_) norms_.assign(2 * num_models * static_cast<std::size_t>(num_blocks_), 0);
  if (needs_norms_ && method.sparsifier == Sparsifier::kRandom) {
    const std::int64_t bytes = job.num_models * num_blocks_ * (kBlockElements / 8);
    if (bytes <= kMaskBytes) {
      masks_.resize(static_cast<std::size_t>(bytes));
      mask_ready_.assign(static_cast<std::size_t>(num_blocks_), 0);
    }
  }
  needs_majority_ = rule_.majority_decides && shared.zero_sign == nullptr;
  if (needs_majority_) balance_.assign(static_cast<std::size_t>(num_blocks_), 0);
  if (shared.zero_sign != nullptr) rule_.combine.zero_sign = *shared.zero_sign;
  static_cast<void>(num_workers);
}

int TaskTensor::num_passes() const { return (own_ ? own_->num_passes() : 0) + needs_norms_ + needs_majority_; }

TaskTensor::Pass TaskTensor::kind_of(int pass) const {
  const int selecting = own_ ? own_->num_passes() : 0;
  if (pass < selecting) return Pass::kSelection;
  return pass == selecting && needs_norms_ ? Pass::kNorms : Pass::kMajority;
}

void TaskTensor::load_base(const Block& block, std::int64_t offset, std::int64_t n, float* tile) const {
  tile_kernels_.load(block.base, offset, n, tile);
}

void TaskTensor::start(const Block& block, Cursors& cursors) const {
  if (selection() == nullptr) return;
  for (int m = 0; m < job_.num_models; ++m) {
    cursors.of_model.push_back(selection()->start(m, block_of_selection(block)));
  }
}

const std::uint8_t* TaskTensor::mask_bits(const Block& block, std::int64_t offset, std::int64_t n, int model_idx,
                                          std::uint8_t* room) const {
  const std::uint64_t threshold = thresholds_[static_cast<std::size_t>(model_idx)];
  if (!masks_.empty() && mask_ready_[static_cast<std::size_t>(block.index)] != 0) {
    return masks_.data() + (model_idx * num_blocks_ * kBlockElements + block.first + offset) / 8;
  }
  random_kernels_.mask(key_, model_idx, block.first + offset, n, threshold, room);
  return room;
}

void TaskTensor::sparse_delta(const Block& block, std::int64_t offset, std::int64_t n, int model_idx, const float* base,
                              float factor, Cursors& cursors, float* delta) const {
  const auto m = static_cast<std::size_t>(model_idx);
  tile_kernels_.load_delta(block.models[m], offset, n, base, delta);
  if (method_.sparsifier == Sparsifier::kRandom) {
    std::uint8_t room[kTile / 8];
    random_kernels_.keep_masked(mask_bits(block, offset, n, model_idx, room), n, factor, delta);
    return;
  }
  if (selection() != nullptr) selection()->keep(model_idx, cursors.of_model[m], delta, n);
  if (factor != 1) tile_kernels_.scale(delta, n, factor);
}

void TaskTensor::reduce(int pass, const Block& block, int worker) {
  switch (kind_of(pass)) {
    case Pass::kSelection: {
      float* base = tiles_.tile(worker, kBaseTile);
      float* delta = tiles_.tile(worker, kDeltaTiles);
      for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
        load_base(block, offset, n, base);
        for (int m = 0; m < job_.num_models; ++m) {
          if (!own_->wants(m)) continue;
          tile_kernels_.load_delta(block.models[static_cast<std::size_t>(m)], offset, n, base, delta);
          own_->count(pass, m, block.index, delta, n, worker);
        }
      });
      break;
    }
    case Pass::kNorms:
      count_norms(block, worker);
      break;
    case Pass::kMajority:
      balance_[static_cast<std::size_t>(block.index)] = static_cast<std::uint64_t>(majority(block, worker));
      break;
  }
}

void TaskTensor::count_norms(const Block& block, int worker) {
  if (!masks_.empty()) {
    for (int m = 0; m < job_.num_models; ++m) {
      random_kernels_.mask(key_, m, block.first, block.count, thresholds_[static_cast<std::size_t>(m)],
                           masks_.data() + (m * num_blocks_ * kBlockElements + block.first) / 8);
    }
    mask_ready_[static_cast<std::size_t>(block.index)] = 1;
  }
  float* base = tiles_.tile(worker, kBaseTile);
  float* delta = tiles_.tile(worker, kDeltaTiles);
  Cursors cursors;
  start(block, cursors);
  for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
    load_base(block, offset, n, base);
    for (int m = 0; m < job_.num_models; ++m) {
      double* norms = norms_.data() + 2 * (m * num_blocks_ + block.index);
      tile_kernels_.load_delta(block.models[static_cast<std::size_t>(m)], offset, n, base, delta);
      norms[0] += sum_kernels_.absolute(delta, n);
      if (method_.sparsifier == Sparsifier::kRandom) {
        std::uint8_t room[kTile / 8];
        random_kernels_.keep_masked(mask_bits(block, offset, n, m, room), n, 1, delta);
      } else {
        selection()->keep(m, cursors.of_model[static_cast<std::size_t>(m)], delta, n);
      }
      norms[1] += sum_kernels_.absolute(delta, n);
    }
  });
}

std::int64_t TaskTensor::majority(const Block& block, int worker) {
  float* base = tiles_.tile(worker, kBaseTile);
  std::vector<const float*> deltas;
  for (int m = 0; m < job_.num_models; ++m) deltas.push_back(tiles_.tile(worker, kDeltaTiles + m));
  Cursors cursors;
  start(block, cursors);
  std::int64_t balance = 0;
  for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
    load_base(block, offset, n, base);
    for (int m = 0; m < job_.num_models; ++m) {
      sparse_delta(block, offset, n, m, base, factors_[static_cast<std::size_t>(m)], cursors,
                   tiles_.tile(worker, kDeltaTiles + m));
    }
    balance += combine_kernels_.majority(deltas, rule_.weights, n, rule_.combine.elect);
  });
  return balance;
}

Partials TaskTensor::partials(int pass) {
  switch (kind_of(pass)) {
    case Pass::kSelection:
      return own_->partials(pass);
    case Pass::kNorms:
      return {.sums = norms_};
    case Pass::kMajority:
      return {.counts = balance_};
  }
  return {};
}

Status TaskTensor::finish(int pass) {
  switch (kind_of(pass)) {
    case Pass::kSelection:
      own_->finish(pass);
      break;
    case Pass::kNorms:
      for (std::int64_t m = 0; m < job_.num_models; ++m) {
        double before = 0, after = 0;
        for (std::int64_t b = 0; b < num_blocks_; ++b) {
          before += norms_[static_cast<std::size_t>(2 * (m * num_blocks_ + b))];
          after += norms_[static_cast<std::size_t>(2 * (m * num_blocks_ + b) + 1)];
        }
        factors_[static_cast<std::size_t>(m)] = l1_factor(before, after);
      }
      break;
    case Pass::kMajority: {
      std::uint64_t sum = 0;
      for (const std::uint64_t balance : balance_) sum += balance;
      rule_.combine.zero_sign = zero_sign_of(static_cast<std::int64_t>(sum));
      break;
    }
  }
  return {};
}

void TaskTensor::apply_dense(const Block& block, const Output& output, int worker) {
  float* base = tiles_.tile(worker, kBaseTile);
  float* sum = tiles_.tile(worker, kOutTile);
  for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
    load_base(block, offset, n, base);
    std::fill_n(sum, padded(n), 0.0F);
    for (std::size_t m = 0; m < rule_.weights.size(); ++m) {
      tile_kernels_.add_scaled_delta(block.models[m], offset, n, base, rule_.weights[m], sum);
    }
    if (rule_.combine.constant_divisor != 1) tile_kernels_.divide(sum, n, rule_.combine.constant_divisor);
    if (rule_.combine.lambda != 1) tile_kernels_.scale(sum, n, rule_.combine.lambda);
    tile_kernels_.add(sum, n, base);
    tile_kernels_.store(sum, n, output, offset);
  });
}

void TaskTensor::apply(const Block& block, const Output& output, int worker) {
  if (method_.sparsifier == Sparsifier::kNone && !method_.elects) return apply_dense(block, output, worker);
  float* base = tiles_.tile(worker, kBaseTile);
  float* out = tiles_.tile(worker, kOutTile);
  std::vector<const float*> deltas;
  for (int m = 0; m < job_.num_models; ++m) deltas.push_back(tiles_.tile(worker, kDeltaTiles + m));
  Cursors cursors;
  start(block, cursors);
  for_each_tile(block, [&](std::int64_t offset, std::int64_t n) {
    load_base(block, offset, n, base);
    for (int m = 0; m < job_.num_models; ++m) {
      sparse_delta(block, offset, n, m, base, factors_[static_cast<std::size_t>(m)], cursors,
                   tiles_.tile(worker, kDeltaTiles + m));
    }
    combine_kernels_.combine(deltas, rule_.weights, n, rule_.combine, base, out);
    tile_kernels_.store(out, n, output, offset);
  });
}

}  // namespace skein::merge
