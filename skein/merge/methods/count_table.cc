#include "skein/merge/methods/count_table.h"

#include <algorithm>

#include "skein/base/check.h"

namespace skein::merge {

CountTable::CountTable(int num_workers, int num_rows, std::int64_t num_buckets, int copies)
    : num_workers_(num_workers), num_rows_(num_rows), num_buckets_(num_buckets), copies_(copies) {
  counts_.reset(static_cast<std::uint32_t*>(std::calloc(place(num_workers, 0), sizeof(std::uint32_t))));
  SKEIN_CHECK(counts_ != nullptr);
  totals_.resize(static_cast<std::size_t>(num_rows * num_buckets));
  worker_ranges_.assign(static_cast<std::size_t>(num_workers * num_rows), {num_buckets, -1});
  rows_.assign(static_cast<std::size_t>(num_rows), {num_buckets, -1});
}

void CountTable::announce(int worker, int row, std::uint32_t lowest, std::uint32_t highest, std::int64_t counted) {
  Range& touched = range(worker, row);
  // A 32-bit counter must not overflow, however many elements one worker sees.
  if (touched.counted + counted > std::int64_t{1} << 31) {
    const std::lock_guard lock(mutex_);
    fold_row(worker, row);
  }
  touched.lowest = std::min<std::int64_t>(touched.lowest, lowest);
  touched.highest = std::max<std::int64_t>(touched.highest, highest);
  touched.counted += counted;
}

void CountTable::fold_row(int worker, int row) {
  Range& touched = range(worker, row);
  if (touched.counted == 0) return;
  Range& all = rows_[static_cast<std::size_t>(row)];
  std::uint64_t* totals = totals_.data() + row * num_buckets_;
  std::uint32_t* counts = this->counts(worker, row);
  const auto take = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      for (int copy = 0; copy < copies_; ++copy) totals[b] += counts[b * copies_ + copy];
    }
    if (begin < end) std::fill(counts + begin * copies_, counts + end * copies_, 0U);
  };
  take(0, 1);
  take(std::max<std::int64_t>(1, touched.lowest), touched.highest + 1);
  all.lowest = std::min(all.lowest, touched.lowest);
  all.highest = std::max({all.highest, touched.highest, std::int64_t{0}});
  touched = {num_buckets_, -1};
}

void CountTable::fold() {
  for (int worker = 0; worker < num_workers_; ++worker) {
    for (int row = 0; row < num_rows_; ++row) fold_row(worker, row);
  }
}

std::span<std::uint64_t> CountTable::all_totals() {
  for (Range& row : rows_) row = {0, num_buckets_ - 1};
  return totals_;
}

void CountTable::clear() {
  fold();
  for (int row = 0; row < num_rows_; ++row) {
    Range& all = rows_[static_cast<std::size_t>(row)];
    std::uint64_t* totals = totals_.data() + row * num_buckets_;
    totals[0] = 0;
    if (all.lowest <= all.highest) std::fill(totals + all.lowest, totals + all.highest + 1, 0U);
    all = {num_buckets_, -1};
  }
}

CountTablePool::Lease CountTablePool::lend(int num_rows, std::int64_t num_buckets, int copies) {
  const auto give_back = [this](CountTable* table) {
    table->clear();
    const std::lock_guard lock(mutex_);
    free_.emplace_back(table);
  };
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(free_.begin(), free_.end(), [&](const auto& table) {
      return table->num_rows() == num_rows && table->num_buckets() == num_buckets;
    });
    if (found != free_.end()) {
      CountTable* table = found->release();
      free_.erase(found);
      return Lease(table, give_back);
    }
  }
  return Lease(new CountTable(num_workers_, num_rows, num_buckets, copies), give_back);
}

}  // namespace skein::merge
