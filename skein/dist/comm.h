// The processes of one job. All but rank() and size() are collective: every rank calls, in the same order.
//
// Failure: a rank that dies takes the job with it (MPI's default); nothing here returns an error. Thread-safety: one
// thread per process calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "skein/base/result.h"

namespace skein {

class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;                                           // in [0, size)
  virtual int size() const = 0;                                           // at least 1
  virtual void broadcast(std::span<std::byte> bytes, int root_rank) = 0;  // in place
  virtual void all_reduce_sum(std::span<float> values) = 0;               // in place, in rank order
  virtual void all_reduce_sum(std::span<double> values) = 0;              // in place, in rank order
  virtual void all_reduce_sum(std::span<std::uint64_t> counts) = 0;       // in place, exact
  // Every rank's part, by rank, at the root; empty elsewhere. Parts may differ in length.
  virtual std::vector<std::vector<std::byte>> gather(std::span<const std::byte> part, int root_rank) = 0;
  virtual void barrier() = 0;
};

// Rank 0 of 1: the default, and the test double.
std::unique_ptr<Comm> make_single_comm();

// The job this process was started in: mpirun's or srun's where this build has MPI and the process was started by one
// of them, else a single process. Fails where it was started as one of several and this build has no MPI. At most one
// at a time; MPI ends with it.
Result<std::unique_ptr<Comm>> make_comm();
bool has_mpi();

// Every rank learns whether all went well. The error of the lowest rank that has one, with the rank named; without
// this, ranks that go on would wait for ever for one that returned.
Status agree(Comm& comm, const Status& own);
std::string broadcast_text(Comm& comm, std::string text, int root_rank);

}  // namespace skein
