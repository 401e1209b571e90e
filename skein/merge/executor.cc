#include "skein/merge/executor.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <limits>
#include <mutex>
#include <numeric>
#include <thread>

#include "skein/base/concat.h"
#include "skein/base/interrupt.h"
#include "skein/io/convert_elements.h"
#include "skein/io/digest.h"
#include "skein/merge/block_buffers.h"
#include "skein/merge/nonfinite.h"
#include "skein/merge/read_ahead.h"

namespace skein::merge {
namespace {

constexpr int kNoSweep = -1;

// A tensor in work: the pass it is in, which of its blocks are handed out, which are done.
struct Active {
  std::size_t tensor_idx = 0;
  const OutputTensor* tensor = nullptr;
  const TensorJob* job = nullptr;      // null for copies
  std::unique_ptr<TensorMerge> merge;  // null for copies and in sweeps
  BlockLayout blocks;
  bool is_alone = false;  // Pieces::kTensor: uses all threads itself
  int pass = 0, num_passes = 0;
  bool is_first_read = true;  // no pass over it has ended yet
  std::uint64_t block_input_bytes = 0;
  bool is_finishing = false;  // a worker is between two passes
  std::int64_t next_block = 0, done_blocks = 0;
  std::int64_t working_bytes = 0;
  std::vector<std::string> digests;  // of blocks
  std::uint64_t num_nonfinite = 0;

  bool has_block() const { return !is_finishing && next_block < blocks.num_blocks; }
};

// One sweep over tensors, or the writing pass: hands blocks to workers until all are done.
//
// Workers hold the mutex only between blocks. The oldest tensor goes first; a new one is taken up when the others have
// no block left to hand out (their last blocks are being computed) and its tables fit.
class Run {
 public:
  Run(Plan& plan, const std::vector<std::size_t>& wanted, const std::vector<std::unique_ptr<SizedFile>>& files,
      const ExecuteOptions& options, int sweep)
      : plan_(plan),
        wanted_(wanted),
        files_(files),
        options_(options),
        sweep_(sweep),
        ahead_(plan, wanted, options.memory) {}

  Status go() {
    std::vector<std::thread> workers;
    for (int i = 0; i < options_.memory.num_workers; ++i) workers.emplace_back([this, i] { work(i); });
    watch();
    for (auto& worker : workers) worker.join();
    if (status_.ok()) status_ = deliver();
    return status_;
  }

 private:
  // ---- the calling thread ----

  // Passes on what is finished until all is.
  void watch() {
    std::unique_lock lock(mutex_);
    while (num_done_ < wanted_.size() && status_.ok()) {
      changed_.wait_for(lock, std::chrono::milliseconds(100),
                        [&] { return num_done_ == wanted_.size() || !status_.ok(); });
      if (interrupted() && status_.ok()) status_ = Error{"interrupted", ErrorKind::kInterrupted};
      if (!status_.ok()) break;
      lock.unlock();
      const Status delivered = deliver();
      lock.lock();
      if (!delivered.ok() && status_.ok()) status_ = delivered;
    }
    ready_.notify_all();
  }

  Status deliver() {
    if (sweep_ != kNoSweep) return {};
    std::vector<std::pair<std::size_t, TensorRecord>> records;
    std::vector<std::pair<const OutputTensor*, std::int64_t>> begun;  // elements handed out for writing
    std::uint64_t bytes = 0;
    {
      const std::lock_guard lock(mutex_);
      records.swap(finished_);
      bytes = written_bytes_;
      for (const auto& active : active_) {
        if (active->pass < active->num_passes) continue;
        begun.push_back({active->tensor, active->next_block * active->blocks.block_elements});
      }
    }
    // Dirty pages go to the disk while the rest is computed, so that the last sync has little to wait for.
    for (const auto& [tensor, num_elements] : begun) {
      files_[static_cast<std::size_t>(tensor->file)]->start_writing(
          tensor->offset, static_cast<std::uint64_t>(num_elements * dtype_size(tensor->dtype)));
    }
    for (const auto& [tensor_idx, record] : records) {
      const auto& tensor = plan_.tensors[tensor_idx];
      files_[static_cast<std::size_t>(tensor.file)]->start_writing(tensor.offset, tensor.num_bytes);
      if (options_.on_done) SKEIN_TRY(options_.on_done(tensor_idx, record));
    }
    return options_.on_tick ? options_.on_tick(bytes) : Status();
  }

  // ---- workers ----

  void work(int worker) {
    BlockBuffers buffers;
    std::unique_lock lock(mutex_);
    while (status_.ok()) {
      Active* active = pick();
      if (active == nullptr) {
        if (next_wanted_ == wanted_.size() && active_.empty()) break;
        ready_.wait(lock);
        continue;
      }
      const std::int64_t block = active->next_block++;
      if (active->is_first_read) ahead_.handed_out(active->block_input_bytes);
      lock.unlock();
      BlockResult result;
      const Status done = do_block(*active, block, worker, buffers, result);
      lock.lock();
      if (!done.ok()) {
        fail(done);
        break;
      }
      account(*active, block, std::move(result));
      if (++active->done_blocks == active->blocks.num_blocks) end_pass(*active, lock);
    }
    ready_.notify_all();
    changed_.notify_all();
  }

  void fail(const Status& status) {
    if (status_.ok()) status_ = status;
    ready_.notify_all();
    changed_.notify_all();
  }

  // A tensor with a block to do; null: wait, or stop.
  Active* pick() {
    for (;;) {
      if (!active_.empty() && active_.front()->is_alone) {
        return active_.front()->has_block() ? active_.front().get() : nullptr;
      }
      for (const auto& active : active_) {
        if (active->has_block()) return active.get();
      }
      if (next_wanted_ == wanted_.size() || !take_up()) return nullptr;
    }
  }

  // Takes up the next tensor if it fits beside the others. False: not now, or failed.
  bool take_up() {
    const std::size_t tensor_idx = wanted_[next_wanted_];
    auto active = std::make_unique<Active>();
    active->tensor_idx = tensor_idx;
    active->tensor = &plan_.tensors[tensor_idx];
    Pieces pieces = Pieces::kBlocks;
    if (active->tensor->job >= 0) {
      active->job = &plan_.jobs[static_cast<std::size_t>(active->tensor->job)];
      if (sweep_ == kNoSweep) {
        active->working_bytes = plan_.model->working_bytes(*active->job);
        if (!active_.empty() && working_bytes_ + active->working_bytes > options_.memory.tensors_bytes) return false;
        auto merge = plan_.model->tensor(*active->job);
        if (!merge.ok()) {
          fail(merge.error());
          return false;
        }
        active->merge = std::move(*merge);
        pieces = active->merge->pieces();
        active->num_passes = active->merge->num_passes();
      }
    }
    active->is_alone = pieces == Pieces::kTensor;
    if (active->is_alone && !active_.empty()) return false;
    active->blocks = layout(pieces, active->tensor->shape);
    if (sweep_ == kNoSweep) active->digests.resize(static_cast<std::size_t>(active->blocks.num_blocks));
    std::vector<FileRange> ranges;
    ranges_of(*active->tensor, 0, active->tensor->num_elements(), ranges);
    std::uint64_t input_bytes = 0;
    for (const auto& range : ranges) input_bytes += range.size;
    active->block_input_bytes =
        input_bytes / static_cast<std::uint64_t>(std::max<std::int64_t>(1, active->blocks.num_blocks));
    working_bytes_ += active->working_bytes;
    ++next_wanted_;
    active_.push_back(std::move(active));
    if (active_.back()->blocks.num_blocks == 0) {  // an empty tensor has no blocks to end its passes
      finished_tensor(*active_.back());
    } else {
      ready_.notify_all();
    }
    return true;
  }

  struct BlockResult {
    std::string digest;
    std::uint64_t num_nonfinite = 0;
    std::uint64_t num_bytes = 0;
  };

  Status do_block(Active& active, std::int64_t index, int worker, BlockBuffers& buffers, BlockResult& result) {
    const OutputTensor& tensor = *active.tensor;
    const std::int64_t first = index * active.blocks.block_elements;
    const std::int64_t count = std::min(active.blocks.block_elements, active.blocks.num_elements - first);
    SKEIN_ASSIGN(const Block block, buffers.read(tensor, index, first, count));
    if (sweep_ != kNoSweep) {
      plan_.model->reduce(sweep_, *active.job, block, worker);
      return {};
    }
    if (active.pass < active.num_passes) {
      active.merge->reduce(active.pass, block, worker);
      return {};
    }
    const Output output = buffers.output(tensor, count);
    if (active.merge != nullptr) {
      active.merge->apply(block, computed_part(output, count), worker);
      widen_in_place(output, count);
    } else {
      SKEIN_TRY(copy(tensor, block, output));
    }
    if (options_.observer != nullptr) options_.observer->observe(active.tensor_idx, block, output, worker);
    return write(tensor, block, output, result);
  }

  Status copy(const OutputTensor& tensor, const Block& block, const Output& output) const {
    const Piece& from = block.models[0];
    const auto bytes = static_cast<std::size_t>(block.count * dtype_size(from.dtype));
    if (!is_floating(from.dtype)) {
      for (std::size_t i = 1; i < block.models.size(); ++i) {
        if (std::memcmp(block.models[i].data, from.data, bytes) == 0) continue;
        return Error{concat("tensor ", printable(tensor.name), " holds integers, which are copied, and ",
                            printable(plan_.sources[static_cast<std::size_t>(tensor.model_sources[i])]->ref.text()),
                            " differs from ",
                            printable(plan_.sources[static_cast<std::size_t>(tensor.model_sources[0])]->ref.text()))};
      }
    }
    if (from.dtype == output.dtype) {
      std::memcpy(output.data, from.data, bytes);
      return {};
    }
    std::vector<float> wide(static_cast<std::size_t>(block.count));
    convert_to_f32(from.dtype, from.data, block.count, wide.data());
    const Output narrow = computed_part(output, block.count);
    convert_from_f32(wide.data(), block.count, narrow.dtype, narrow.data);
    widen_in_place(output, block.count);
    return {};
  }

  Status write(const OutputTensor& tensor, const Block& block, const Output& output, BlockResult& result) {
    const std::span<const std::byte> bytes{output.data,
                                           static_cast<std::size_t>(block.count * dtype_size(output.dtype))};
    const auto start = static_cast<std::uint64_t>(block.first * dtype_size(output.dtype));
    SKEIN_TRY(files_[static_cast<std::size_t>(tensor.file)]->write_at(tensor.offset + start, bytes));
    for (std::size_t i = 0; i < tensor.extras.size(); ++i) {
      const ExtraPlace& place = tensor.extras[i];
      const auto extra_start = static_cast<std::uint64_t>(extra_bytes(place, block.first));
      SKEIN_TRY(files_[static_cast<std::size_t>(place.file)]->write_at(
          place.offset + extra_start, {output.extras[i], static_cast<std::size_t>(extra_bytes(place, block.count))}));
    }
    Digest digest;
    digest.update(bytes);
    result.digest = digest.hex();
    result.num_nonfinite = count_nonfinite(output.dtype, output.data, block.count);
    result.num_bytes = bytes.size();
    return {};
  }

  void account(Active& active, std::int64_t block, BlockResult result) {
    if (sweep_ != kNoSweep || active.pass < active.num_passes) return;
    active.digests[static_cast<std::size_t>(block)] = std::move(result.digest);
    active.num_nonfinite += result.num_nonfinite;
    written_bytes_ += result.num_bytes;
  }

  // After the last block of a pass: the method's conclusions, then the next pass or the end.
  void end_pass(Active& active, std::unique_lock<std::mutex>& lock) {
    if (sweep_ != kNoSweep || active.pass == active.num_passes) {
      finished_tensor(active);
      return;
    }
    active.is_finishing = true;
    lock.unlock();
    const Status finished = active.merge->finish(active.pass);
    const int num_passes = active.merge->num_passes();
    lock.lock();
    if (!finished.ok()) {
      fail(Error{concat("tensor ", printable(active.tensor->name), ": ", finished.error().message)});
      return;
    }
    active.is_finishing = false;
    active.is_first_read = false;
    ++active.pass;
    active.num_passes = std::max(num_passes, active.pass);
    active.next_block = active.done_blocks = 0;
    ready_.notify_all();
  }

  void finished_tensor(Active& active) {
    if (sweep_ == kNoSweep) {
      TensorRecord record;
      record.digest = digest_of_pieces(active.digests);
      record.piece_bytes = active.blocks.block_elements * dtype_size(active.tensor->dtype);
      record.num_nonfinite = active.num_nonfinite;
      finished_.emplace_back(active.tensor_idx, std::move(record));
    }
    working_bytes_ -= active.working_bytes;
    ++num_done_;
    std::erase_if(active_, [&](const auto& other) { return other.get() == &active; });
    ready_.notify_all();
    if (num_done_ == wanted_.size()) changed_.notify_all();
  }

  Plan& plan_;
  const std::vector<std::size_t>& wanted_;
  const std::vector<std::unique_ptr<SizedFile>>& files_;
  const ExecuteOptions& options_;
  const int sweep_;

  ReadAhead ahead_;
  std::mutex mutex_;
  std::condition_variable ready_;               // workers: there may be a block
  std::condition_variable changed_;             // the calling thread: the end, or an error
  std::deque<std::unique_ptr<Active>> active_;  // oldest first
  std::size_t next_wanted_ = 0, num_done_ = 0;
  std::int64_t working_bytes_ = 0;  // of active_
  std::uint64_t written_bytes_ = 0;
  std::vector<std::pair<std::size_t, TensorRecord>> finished_;
  Status status_;
};

Status sum_over_ranks(Comm& comm, const Partials& partials) {
  if (comm.size() == 1) return {};
  comm.all_reduce_sum(partials.counts);
  comm.all_reduce_sum(partials.sums);
  return {};
}

}  // namespace

std::string digest_of_pieces(const std::vector<std::string>& piece_digests) {
  Digest digest;
  for (const auto& piece : piece_digests) digest.update(piece);
  return digest.hex();
}

Status execute(Plan& plan, Comm& comm, const std::vector<std::size_t>& wanted,
               const std::vector<std::unique_ptr<SizedFile>>& files, const ExecuteOptions& options) {
  if (plan.model->num_sweeps() > 0) {
    // What a sweep gathers is of every tensor, those of an earlier run included.
    std::vector<std::size_t> swept;
    for (const std::size_t i : share_of_rank(plan, comm.rank(), comm.size())) {
      if (plan.tensors[i].job >= 0) swept.push_back(i);
    }
    for (int sweep = 0; sweep < plan.model->num_sweeps(); ++sweep) {
      SKEIN_TRY(agree(comm, Run(plan, swept, files, options, sweep).go()));
      SKEIN_TRY(sum_over_ranks(comm, plan.model->partials(sweep)));
      SKEIN_TRY(agree(comm, plan.model->finish(sweep)));
    }
  }
  return agree(comm, Run(plan, wanted, files, options, kNoSweep).go());
}

std::vector<std::size_t> share_of_rank(const Plan& plan, int rank, int num_ranks) {
  // The largest first, each to the rank with the least so far; then back into the plan's order.
  std::vector<std::size_t> order(plan.tensors.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return plan.tensors[a].num_bytes > plan.tensors[b].num_bytes; });
  std::vector<std::uint64_t> loads(static_cast<std::size_t>(num_ranks), 0);
  std::vector<std::size_t> share;
  for (const std::size_t i : order) {
    const auto least = std::min_element(loads.begin(), loads.end());
    *least += plan.tensors[i].num_bytes;
    if (least - loads.begin() == rank) share.push_back(i);
  }
  std::sort(share.begin(), share.end());
  return share;
}

}  // namespace skein::merge
