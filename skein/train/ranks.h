// Data-parallel training: what the ranks of a job do alike, and what rank 0 does for all. On one rank nothing is sent.
//
// Every function is collective: each rank calls it, in the same order. A failure of one rank becomes everyone's, so
// that none waits for one that has gone.
#pragma once

#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/base/result.h"
#include "skein/dist/comm.h"

namespace skein {

inline bool is_root(const Comm& comm) { return comm.rank() == 0; }
// Every rank works. Throws Failure on all if one failed: the lowest one's, its rank named.
void together(Comm& comm, const std::function<void()>& work);
// The first half of that: what work throws, as a Status. Not collective.
Status attempt(const std::function<void()>& work);
// Rank 0 works: reading and writing of states, logs and results. Throws on all if it failed.
void on_root(Comm& comm, const std::function<void()>& work);

// Which of `count` items in order are this rank's: a range, all ranks' sizes within one of each other.
struct Share {
  std::int64_t first = 0, count = 0;
};
Share share_of(const Comm& comm, std::int64_t count);

// Rank 0's values everywhere, in place. f32.
void broadcast_from_root(Comm& comm, const std::vector<at::Tensor>& tensors);
// The sums over the ranks everywhere, in place, added in rank order: the same bits on every rank. f32; one message.
void sum_over_ranks(Comm& comm, const std::vector<at::Tensor>& tensors);

}  // namespace skein
