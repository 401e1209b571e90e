// How many workers, and how many tensors at once, fit into the memory that is allowed.
#include <algorithm>
#include <map>
#include <set>

#include "skein/base/concat.h"
#include "skein/merge/block_buffers.h"
#include "skein/merge/executor.h"

namespace skein::merge {
namespace {

// The program, its libraries, stacks, the plan's own tables per tensor: measured, rounded up.
constexpr std::int64_t kProgramBytes = 40 << 20;
constexpr std::int64_t kBytesPerTensor = 4096;
// Room for reading past the page cache: more than keeps the disk busy is no use, and much less would make it wait.
constexpr std::int64_t kMostPrefetchBytes = 128 << 20, kLeastPrefetchBytes = 24 << 20;

struct Needs {
  std::int64_t block_bytes = 0;    // the largest block's buffers
  std::int64_t whole_bytes = 0;    // the largest tensor that must be whole, and what the method adds to it
  std::int64_t working_bytes = 0;  // the largest of the method's own tables
  bool has_passes = false;
};

struct Cut {
  Pieces pieces = Pieces::kBlocks;
  int num_passes = 0;
};

// How a tensor is cut depends on method, shape and parameters: the method is asked once per shape.
Result<Cut> cut_of(const Plan& plan, const TensorJob& job, std::map<Shape, Cut>& known) {
  const auto found = known.find(job.shape);
  if (found != known.end()) return found->second;
  SKEIN_ASSIGN(const auto tensor, plan.model->tensor(job));
  return known.emplace(job.shape, Cut{tensor->pieces(), tensor->num_passes()}).first->second;
}

Result<Needs> needs_of(const Plan& plan) {
  Needs needs;
  std::map<Shape, Cut> known;
  for (const auto& tensor : plan.tensors) {
    Cut cut;
    std::int64_t working = 0;
    if (tensor.job >= 0) {
      const auto& job = plan.jobs[static_cast<std::size_t>(tensor.job)];
      SKEIN_ASSIGN(cut, cut_of(plan, job, known));
      working = plan.model->working_bytes(job);
    }
    needs.has_passes = needs.has_passes || cut.num_passes > 0;
    const BlockLayout blocks = layout(cut.pieces, tensor.shape);
    const std::int64_t bytes = BlockBuffers::bytes_for(tensor, std::min(blocks.block_elements, blocks.num_elements));
    if (cut.pieces == Pieces::kTensor) {
      needs.whole_bytes = std::max(needs.whole_bytes, bytes + working);
    } else {
      needs.block_bytes = std::max(needs.block_bytes, bytes);
      needs.working_bytes = std::max(needs.working_bytes, working);
    }
  }
  return needs;
}

std::string mebibytes(std::int64_t bytes) { return concat((bytes + (1 << 20) - 1) >> 20, "M"); }

}  // namespace

Result<MemoryPlan> plan_memory(const Plan& plan, std::int64_t memory_bytes, int max_workers) {
  SKEIN_ASSIGN(const Needs needs, needs_of(plan));
  const std::int64_t fixed = kProgramBytes + kBytesPerTensor * static_cast<std::int64_t>(plan.tensors.size());
  // A whole tensor is done alone, so its buffers and those of blocks are never full together; they are kept, though.
  const std::int64_t least = fixed + needs.whole_bytes + needs.block_bytes + needs.working_bytes;
  if (least > memory_bytes) {
    return Error{concat("this merge needs at least --memory ", mebibytes(least), " and --memory ",
                        mebibytes(memory_bytes), " was given",
                        needs.whole_bytes > 0
                            ? concat("; ", plan.method->title, " holds the largest matrix of every model at once")
                            : std::string())};
  }
  MemoryPlan memory;
  const std::int64_t room = memory_bytes - fixed - needs.whole_bytes - needs.working_bytes;
  memory.num_workers = max_workers;
  if (needs.block_bytes > 0) {
    memory.num_workers = static_cast<int>(std::clamp<std::int64_t>(room / needs.block_bytes, 1, max_workers));
  }
  memory.worker_bytes = needs.block_bytes;
  std::int64_t left = room - memory.num_workers * needs.block_bytes;
  // Two tensors per worker keep all of them busy while one tensor's pass ends.
  const std::int64_t more_tensors = std::min(left, (2 * memory.num_workers - 1) * needs.working_bytes);
  memory.tensors_bytes = needs.working_bytes + more_tensors;
  left -= more_tensors;
  // What is read again is read from the page cache.
  const bool reads_once = !needs.has_passes && plan.model->num_sweeps() == 0 && needs.whole_bytes == 0;
  if (reads_once && left >= kLeastPrefetchBytes) memory.prefetch_bytes = std::min(left, kMostPrefetchBytes);
  memory.peak_bytes =
      fixed + needs.whole_bytes + memory.num_workers * needs.block_bytes + memory.tensors_bytes + memory.prefetch_bytes;
  return memory;
}

}  // namespace skein::merge
