#include "benchmarks/timing.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <vector>

#include <ATen/ATen.h>

namespace skein {

double median_seconds(int repeats, const std::function<void()>& work) {
  work();
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + repeats / 2, seconds.end());
  return seconds[repeats / 2];
}

std::int64_t peak_memory_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word == "VmHWM:") {
      std::int64_t kib = 0;
      status >> kib;
      return kib * 1024;
    }
  }
  return 0;
}

double read_bandwidth() {
  const at::Tensor buffer = at::ones({std::int64_t{64} << 20}, at::kFloat);  // 256 MiB
  double best = 0;
  for (int i = 0; i < 9; ++i) {  // a floor is what the machine can do at its best
    const auto begin = std::chrono::steady_clock::now();
    buffer.sum();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, static_cast<double>(buffer.nbytes()) / seconds.count());
  }
  return best;
}

std::string argument(int argc, char** argv, const std::string& name, const std::string& otherwise) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (argv[i] == "--" + name) return argv[i + 1];
  }
  return otherwise;
}

std::int64_t integer_argument(int argc, char** argv, const std::string& name, std::int64_t otherwise) {
  const std::string text = argument(argc, argv, name, "");
  return text.empty() ? otherwise : std::stoll(text);
}

}  // namespace skein
