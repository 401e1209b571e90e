// Carries a plan out: reads blocks, hands them to the method, writes what it gives to its place.
// docs/design/merge-engine.md.
//
// The output's bytes depend on the plan alone: not on threads, memory, ranks, or on which tensors an earlier run did.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/dist/comm.h"
#include "skein/io/env.h"
#include "skein/merge/plan.h"

namespace skein::merge {

// How the work fits into the memory that is allowed.
struct MemoryPlan {
  int num_workers = 1;
  std::int64_t worker_bytes = 0;   // buffers of one worker
  std::int64_t tensors_bytes = 0;  // for the methods' own tables, of all tensors in work at once
  std::int64_t prefetch_bytes =
      0;                        // for inputs read ahead past the page cache; 0: none, or they are read more than once
  std::int64_t peak_bytes = 0;  // of all, the program itself included
};
// Fewer threads than allowed where memory is short; an error with the least that suffices where even one does not fit.
Result<MemoryPlan> plan_memory(const Plan& plan, std::int64_t memory_bytes, int max_workers);

// What is known of a finished tensor.
struct TensorRecord {
  std::string digest;               // of its bytes: see digest_of_pieces(); 32 hex digits
  std::int64_t piece_bytes = 0;     // the digest's pieces
  std::uint64_t num_nonfinite = 0;  // NaN and infinite elements
};

// The digest of a tensor is that of its pieces' digests in order, so that pieces can be done in any order.
std::string digest_of_pieces(const std::vector<std::string>& piece_digests);

// Sees every block of the writing pass once, after its result is there; from many workers at once.
class BlockObserver {
 public:
  virtual ~BlockObserver() = default;
  virtual void observe(std::size_t tensor_idx, const Block& block, const Output& output, int worker) = 0;
};

struct ExecuteOptions {
  MemoryPlan memory;
  // Called by the thread that called execute(), for every tensor of this rank, soon after its last byte was written.
  std::function<Status(std::size_t tensor_idx, const TensorRecord&)> on_done;
  // Called now and then by that thread, with the bytes written so far.
  std::function<Status(std::uint64_t bytes)> on_tick;
  BlockObserver* observer = nullptr;  // null: none
};

// Tensors of `wanted` (indices into plan.tensors; this rank's share) into `files` (one per plan.files, open).
Status execute(Plan& plan, Comm& comm, const std::vector<std::size_t>& wanted,
               const std::vector<std::unique_ptr<SizedFile>>& files, const ExecuteOptions& options);

// Which tensors a rank does: about equal bytes each, the same on every rank.
std::vector<std::size_t> share_of_rank(const Plan& plan, int rank, int num_ranks);

}  // namespace skein::merge
