// What every benchmark needs: medians, peak memory, and the floor that memory sets.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace skein {

// Median of `repeats` calls, after one that is not counted. Seconds.
double median_seconds(int repeats, const std::function<void()>& work);

// VmHWM: the largest resident memory of the process so far, mapped pages included. Bytes.
std::int64_t peak_memory_bytes();

// How fast this machine reads memory with the threads libtorch uses: bytes per second over a buffer far larger than the
// caches. No decoding step can be faster than its weights are streamed.
double read_bandwidth();

// "--name value" among the arguments, or the default.
std::string argument(int argc, char** argv, const std::string& name, const std::string& otherwise);
std::int64_t integer_argument(int argc, char** argv, const std::string& name, std::int64_t otherwise);

}  // namespace skein
