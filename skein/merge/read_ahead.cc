#include "skein/merge/read_ahead.h"

#include <algorithm>

namespace skein::merge {
namespace {

// How far reading ahead of the workers goes, and in which steps. Steps of several blocks keep the disk's requests large
// where blocks of many files alternate.
constexpr std::uint64_t kAheadBytes = 96 << 20;
constexpr std::int64_t kStepElements = 32 * kBlockElements;
constexpr std::uint64_t kNoticeBytes = 4 << 20;

}  // namespace

void ranges_of(const OutputTensor& tensor, std::int64_t first, std::int64_t count, std::vector<FileRange>& ranges) {
  for (const auto& model : tensor.models) model->ranges(first, count, ranges);
  if (tensor.base != nullptr) tensor.base->ranges(first, count, ranges);
}

ReadAhead::ReadAhead(const Plan& plan, const std::vector<std::size_t>& wanted, const MemoryPlan& memory)
    : plan_(plan), wanted_(wanted), memory_(memory) {
  if (memory.prefetch_bytes > 0 && !plan.sources.empty()) room_ = plan.sources[0]->room.get();
  if (room_ != nullptr) room_->open(memory.prefetch_bytes);
  // Or else the first block's worker would race with this, and read past what is fetched for it.
  if (ask()) thread_ = std::thread([this] { run(); });
}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  moved_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void ReadAhead::handed_out(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  handed_ += bytes;
  if (handed_ - told_ < kNoticeBytes) return;
  told_ = handed_;
  moved_.notify_one();
}

void ReadAhead::run() {
  // A third of the room is for pieces that are still being taken.
  const std::uint64_t window =
      room_ != nullptr ? static_cast<std::uint64_t>(memory_.prefetch_bytes) / 3 * 2 : kAheadBytes;
  do {
    std::unique_lock lock(mutex_);
    moved_.wait(lock, [&] { return is_over_ || asked_ < told_ + window; });
    if (is_over_) return;
  } while (ask());
}

bool ReadAhead::ask() {
  if (next_ == wanted_.size()) return false;
  const OutputTensor& tensor = plan_.tensors[wanted_[next_]];
  const std::int64_t count = std::min(kStepElements, tensor.num_elements() - first_);
  ranges_.clear();
  ranges_of(tensor, first_, count, ranges_);
  for (const auto& range : ranges_) {
    if (room_ != nullptr) {
      room_->fetch(*range.file, range.offset, range.size);
    } else {
      range.file->will_need(range.offset, range.size);
    }
    asked_ += range.size;
  }
  first_ += count;
  if (first_ >= tensor.num_elements()) {
    first_ = 0;
    ++next_;
  }
  return next_ < wanted_.size();
}

}  // namespace skein::merge
