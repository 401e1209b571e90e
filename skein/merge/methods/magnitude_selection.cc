#include "skein/merge/methods/magnitude_selection.h"

#include <algorithm>
#include <bit>

#include "skein/base/check.h"

namespace skein::merge {
namespace {

constexpr int kUpper = 0, kLower = 1;
constexpr std::uint32_t kAboveAll = std::uint32_t{1} << 31;
constexpr std::int64_t kFineBuckets = 65536;

bool is_half(DType type) { return type == DType::kBF16 || type == DType::kF16; }

// The bucket of the element of this rank, counted from the highest bucket down, and how many lie in buckets above.
std::pair<std::uint32_t, std::int64_t> bucket_of_rank(std::span<const std::uint64_t> totals, std::int64_t highest,
                                                      std::int64_t rank) {
  std::int64_t above = 0;
  for (std::int64_t b = highest; b > 0; --b) {
    const auto here = static_cast<std::int64_t>(totals[static_cast<std::size_t>(b)]);
    if (above + here > rank) return {static_cast<std::uint32_t>(b), above};
    above += here;
  }
  return {0, above};
}

}  // namespace

MagnitudeSelection::MagnitudeSelection(DType type, std::int64_t num_elements, std::int64_t num_blocks,
                                       std::vector<RankWindow> windows, TiesAtCut ties, CountTablePool& pool)
    : type_(type), num_blocks_(num_blocks), ties_rule_(ties), pool_(&pool) {
  bool needed = false;
  for (RankWindow window : windows) {
    window.skip = std::clamp<std::int64_t>(window.skip, 0, num_elements);
    window.take = std::clamp<std::int64_t>(window.take, 0, num_elements - window.skip);
    Cuts cuts{.window = window};
    cuts.trivial = window.take == 0 || window.take == num_elements;
    cuts.hi = window.take == 0 ? 0 : kAboveAll;
    needed = needed || !cuts.trivial;
    cuts_.push_back(cuts);
  }
  if (!needed) return;
  passes_ = {Pass::kCoarse, Pass::kTies};
  if (!is_half(type)) passes_.insert(passes_.begin() + 1, Pass::kFine);
  coarse_ = pool.lend(static_cast<int>(windows.size()), kKeys, kCounterCopies);
}

void MagnitudeSelection::count(int pass, int model_idx, std::int64_t block_idx, const float* delta, std::int64_t n,
                               int worker) {
  const Cuts& cuts = cuts_[static_cast<std::size_t>(model_idx)];
  switch (passes_[static_cast<std::size_t>(pass)]) {
    case Pass::kCoarse: {
      alignas(64) std::uint32_t slots[kTile];
      const KeyRange range = kernels_.slots(delta, n, type_, slots);
      coarse_->announce(worker, model_idx, range.lowest, range.highest, n);
      count_slots(slots, n, coarse_->counts(worker, model_idx));
      break;
    }
    case Pass::kFine:
      for (const int cut : {kUpper, kLower}) {
        if (cut == kUpper && cuts.window.skip == 0) continue;
        const int row = 2 * model_idx + cut;
        std::uint32_t* counts = fine_->counts(worker, row);
        fine_->announce(worker, row, 0, kFineBuckets - 1, n);
        for (std::int64_t i = 0; i < n; ++i) {
          const std::uint32_t bits = std::bit_cast<std::uint32_t>(delta[i]) & 0x7fffffffU;
          if (bits >> 16 == cuts.bucket[cut]) ++counts[bits & 0xffffU];
        }
      }
      break;
    case Pass::kTies:
      for (const Run& run : cuts.runs) {
        if (run.ties_row < 0) continue;
        ties_[static_cast<std::size_t>(run.ties_row * num_blocks_ + block_idx)] +=
            static_cast<std::uint64_t>(kernels_.count_between(delta, n, run.lo, run.hi));
      }
      break;
  }
}

Partials MagnitudeSelection::partials(int pass) {
  switch (passes_[static_cast<std::size_t>(pass)]) {
    case Pass::kCoarse:
      coarse_->fold();
      return {.counts = coarse_->all_totals()};
    case Pass::kFine:
      fine_->fold();
      return {.counts = fine_->all_totals()};
    case Pass::kTies:
      return {.counts = ties_};
  }
  return {};
}

void MagnitudeSelection::finish(int pass) {
  const int num_models = static_cast<int>(cuts_.size());
  switch (passes_[static_cast<std::size_t>(pass)]) {
    case Pass::kCoarse:
      coarse_->fold();
      for (int m = 0; m < num_models; ++m) {
        if (wants(m)) find_buckets(m);
      }
      coarse_.reset();
      if (is_half(type_)) {
        plan_ties();
      } else {
        fine_ = pool_->lend(2 * num_models, kFineBuckets, 1);
      }
      break;
    case Pass::kFine:
      fine_->fold();
      for (int m = 0; m < num_models; ++m) {
        if (wants(m)) find_fine(m);
      }
      fine_.reset();
      plan_ties();
      break;
    case Pass::kTies:
      for (std::size_t row = 0; row < ties_.size(); row += static_cast<std::size_t>(num_blocks_)) {
        std::uint64_t before = 0;
        for (std::size_t b = row; b < row + static_cast<std::size_t>(num_blocks_); ++b) {
          before += std::exchange(ties_[b], before);
        }
      }
      break;
  }
}

void MagnitudeSelection::find_buckets(int model_idx) {
  Cuts& cuts = cuts_[static_cast<std::size_t>(model_idx)];
  const auto totals = coarse_->totals(model_idx);
  const std::int64_t ranks[2] = {cuts.window.skip, cuts.window.skip + cuts.window.take - 1};
  std::uint32_t lo[2], hi[2];
  std::int64_t count[2];
  for (const int cut : {kUpper, kLower}) {
    std::tie(cuts.bucket[cut], cuts.above[cut]) = bucket_of_rank(totals, coarse_->highest(model_idx), ranks[cut]);
    lo[cut] = first_bits_of_key(type_, cuts.bucket[cut]);
    hi[cut] = first_bits_of_key(type_, cuts.bucket[cut] + 1);
    count[cut] = static_cast<std::int64_t>(totals[cuts.bucket[cut]]);
  }
  if (is_half(type_)) set_cut(cuts, lo, hi, count);
}

void MagnitudeSelection::find_fine(int model_idx) {
  Cuts& cuts = cuts_[static_cast<std::size_t>(model_idx)];
  const std::int64_t ranks[2] = {cuts.window.skip, cuts.window.skip + cuts.window.take - 1};
  std::uint32_t lo[2], hi[2];
  std::int64_t count[2];
  for (const int cut : {kUpper, kLower}) {
    if (cut == kUpper && cuts.window.skip == 0) {
      lo[cut] = hi[cut] = kAboveAll;
      count[cut] = cuts.above[cut] = 0;
      continue;
    }
    const auto totals = fine_->totals(2 * model_idx + cut);
    const auto [bucket, above] = bucket_of_rank(totals, kFineBuckets - 1, ranks[cut] - cuts.above[cut]);
    cuts.above[cut] += above;
    lo[cut] = cuts.bucket[cut] << 16 | bucket;
    hi[cut] = lo[cut] + 1;
    cuts.at_cut[cut] = lo[cut];
    count[cut] = static_cast<std::int64_t>(totals[bucket]);
  }
  set_cut(cuts, lo, hi, count);
}

void MagnitudeSelection::set_cut(Cuts& cuts, const std::uint32_t lo[2], const std::uint32_t hi[2],
                                 const std::int64_t count[2]) {
  Run upper{lo[kUpper], hi[kUpper], cuts.window.skip - cuts.above[kUpper], 0};
  Run lower{lo[kLower], hi[kLower], 0, cuts.window.skip + cuts.window.take - cuts.above[kLower]};
  const std::uint32_t open = cuts.window.skip == 0 ? kAboveAll : 0;  // nothing is dropped at the top
  if (lo[kUpper] == lo[kLower]) {
    lower.skip = upper.skip;
    lower.take = cuts.window.take;
    cuts.lo = lower.hi;
    cuts.hi = std::max(open, lower.hi);
    upper = {};
  } else {
    upper.take = count[kUpper] - upper.skip;
    cuts.lo = lower.hi;
    cuts.hi = std::max(open, upper.skip == 0 ? upper.hi : upper.lo);
    if (upper.skip == 0) upper = {};
  }
  if (ties_rule_ == TiesAtCut::kKeepAll) lower.take = count[kLower] - lower.skip;
  if (ties_rule_ == TiesAtCut::kDropAll) lower.take = 0;
  if (lower.take == 0) {
    lower = {};
  } else if (lower.skip == 0 && lower.take == count[kLower]) {
    cuts.lo = lower.lo;
    lower = {};
  }
  cuts.runs[kUpper] = upper;
  cuts.runs[kLower] = lower;
}

void MagnitudeSelection::plan_ties() {
  std::int64_t rows = 0;
  if (num_blocks_ > 1) {
    for (Cuts& cuts : cuts_) {
      for (Run& run : cuts.runs) {
        if (!cuts.trivial && run.partial()) run.ties_row = rows++;
      }
    }
  }
  ties_.assign(static_cast<std::size_t>(rows * num_blocks_), 0);
  if (rows == 0) passes_.pop_back();
}

MagnitudeSelection::Cursor MagnitudeSelection::start(int model_idx, std::int64_t block_idx) const {
  Cursor cursor;
  for (const int cut : {kUpper, kLower}) {
    const Run& run = cuts_[static_cast<std::size_t>(model_idx)].runs[cut];
    if (run.ties_row < 0) continue;
    cursor.seen[cut] =
        static_cast<std::int64_t>(ties_[static_cast<std::size_t>(run.ties_row * num_blocks_ + block_idx)]);
  }
  return cursor;
}

void MagnitudeSelection::keep(int model_idx, Cursor& cursor, float* delta, std::int64_t n) const {
  const Cuts& cuts = cuts_[static_cast<std::size_t>(model_idx)];
  if (cuts.trivial) {
    if (cuts.hi == 0) std::fill_n(delta, n, 0.0F);
    return;
  }
  const Run& upper = cuts.runs[kUpper];
  if (upper.partial()) return keep_two_runs(cuts, cursor, delta, n);
  const Run& run = cuts.runs[kLower];
  const std::int64_t first = cursor.seen[kLower], end = run.skip + run.take;
  if (!run.partial() || first >= end) return kernels_.keep_between(delta, n, cuts.lo, cuts.hi);
  // The run borders on what is kept anyway, or is all that is kept. Kept for now; what is too much goes afterwards.
  const std::int64_t ties =
      kernels_.keep_and_count(delta, n, std::min(cuts.lo, run.lo), std::max(cuts.hi, run.hi), run.lo, run.hi);
  cursor.seen[kLower] += ties;
  if (first < run.skip || first + ties > end) drop_ties(run, first, delta, n);
}

void MagnitudeSelection::keep_two_runs(const Cuts& cuts, Cursor& cursor, float* delta, std::int64_t n) const {
  std::uint32_t lo = cuts.lo, hi = cuts.hi;
  std::int64_t first[2] = {cursor.seen[kUpper], cursor.seen[kLower]};
  for (const int cut : {kUpper, kLower}) {
    const Run& run = cuts.runs[cut];
    if (!run.partial() || first[cut] >= run.skip + run.take) continue;
    cursor.seen[cut] += kernels_.count_between(delta, n, run.lo, run.hi);
    lo = std::min(lo, run.lo);
    hi = std::max(hi, run.hi);
  }
  kernels_.keep_between(delta, n, lo, hi);
  for (const int cut : {kUpper, kLower}) {
    const Run& run = cuts.runs[cut];
    if (first[cut] < run.skip || cursor.seen[cut] > run.skip + run.take) drop_ties(run, first[cut], delta, n);
  }
}

void MagnitudeSelection::drop_ties(const Run& run, std::int64_t first, float* delta, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(delta[i]) & 0x7fffffffU;
    if (bits < run.lo || bits >= run.hi) continue;
    if (first < run.skip || first >= run.skip + run.take) delta[i] = 0;
    ++first;
  }
}

std::int64_t MagnitudeSelection::working_bytes(DType type, int num_models, std::int64_t num_blocks, int num_workers) {
  const std::int64_t coarse = CountTable::bytes(num_workers, num_models, kKeys, kCounterCopies);
  const std::int64_t fine = is_half(type) ? 0 : CountTable::bytes(num_workers, 2 * num_models, kFineBuckets, 1);
  return coarse + fine + 2 * num_models * num_blocks * 8;
}

}  // namespace skein::merge
