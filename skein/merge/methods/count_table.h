// Histograms that many workers fill at once: a row of buckets per worker, added up into 64-bit totals.
//
// Only the buckets a worker says it touched are added and cleared, so that a small tensor does not pay for 32768.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace skein::merge {

class CountTable {
 public:
  // `copies` neighbouring 32-bit counters per bucket, for loops that take them in turn.
  CountTable(int num_workers, int num_rows, std::int64_t num_buckets, int copies);

  std::uint32_t* counts(int worker, int row) { return counts_.get() + place(worker, row); }
  // That `counted` increments of the row's buckets in [lowest, highest], or of bucket 0, are about to be made by the
  // worker. Thread-safe for different workers.
  void announce(int worker, int row, std::uint32_t lowest, std::uint32_t highest, std::int64_t counted);

  // Adds all workers' counters to the totals and clears them. After all workers are done.
  void fold();
  std::span<const std::uint64_t> totals(int row) const {
    return std::span(totals_).subspan(static_cast<std::size_t>(row * num_buckets_),
                                      static_cast<std::size_t>(num_buckets_));
  }
  // All totals, to be changed in place.
  std::span<std::uint64_t> all_totals();
  std::int64_t highest(int row) const { return rows_[static_cast<std::size_t>(row)].highest; }
  // Everything 0 again.
  void clear();

  int num_rows() const { return num_rows_; }
  std::int64_t num_buckets() const { return num_buckets_; }
  static std::int64_t bytes(int num_workers, int num_rows, std::int64_t num_buckets, int copies) {
    return num_rows * num_buckets * (8 + 4 * static_cast<std::int64_t>(num_workers) * copies);
  }

 private:
  struct Free {
    void operator()(std::uint32_t* memory) const { std::free(memory); }
  };
  struct Range {
    std::int64_t lowest, highest;
    std::int64_t counted = 0;  // since the last fold
  };
  std::size_t place(int worker, int row) const {
    return static_cast<std::size_t>((worker * num_rows_ + row) * num_buckets_ * copies_);
  }
  Range& range(int worker, int row) { return worker_ranges_[static_cast<std::size_t>(worker * num_rows_ + row)]; }
  void fold_row(int worker, int row);

  int num_workers_, num_rows_;
  std::int64_t num_buckets_;
  int copies_;
  // From calloc: buckets nobody counts in cost no memory.
  std::unique_ptr<std::uint32_t[], Free> counts_;
  std::vector<std::uint64_t> totals_;
  std::vector<Range> worker_ranges_;
  std::vector<Range> rows_;
  std::mutex mutex_;
};

// Tables that come back clean, for the next tensor. Thread-safe.
class CountTablePool {
 public:
  explicit CountTablePool(int num_workers) : num_workers_(num_workers) {}
  using Lease = std::unique_ptr<CountTable, std::function<void(CountTable*)>>;
  Lease lend(int num_rows, std::int64_t num_buckets, int copies);
  int num_workers() const { return num_workers_; }

 private:
  int num_workers_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<CountTable>> free_;
};

}  // namespace skein::merge
