// Data-parallel training: how its work and its tensors go over the ranks of a job. On one rank nothing is sent.
//
// Every function but share_of is collective: each rank calls it, in the same order.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/dist/together.h"

namespace skein {

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
