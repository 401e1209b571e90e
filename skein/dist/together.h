// Work of the ranks of a job in which a failure of one becomes everyone's, so that none waits for one that has gone.
//
// All but attempt() are collective: each rank calls, in the same order. On one rank nothing is sent.
#pragma once

#include <functional>

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

}  // namespace skein
