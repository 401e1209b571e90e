// A fixed set of worker threads and one loop over a range. The torch-free side's parallelism; libtorch has its own.
#pragma once

#include <cstdint>
#include <functional>

namespace skein {

// Cores this process may use (its affinity mask), at least 1.
int available_cores();

// Runs body(begin, end) over [0, count) in chunks of at most `grain`, on the calling thread and the process's workers.
// Chunk borders depend on count and grain only, never on the number of threads. Returns when all chunks are done; an
// exception in a chunk is rethrown here. Calls from inside a body run serially.
void parallel_for(std::int64_t count, std::int64_t grain, const std::function<void(std::int64_t, std::int64_t)>& body);

// Threads parallel_for uses, the caller included. Set once, before the first parallel_for. Default available_cores().
void set_num_threads(int num_threads);
int num_threads();

}  // namespace skein
