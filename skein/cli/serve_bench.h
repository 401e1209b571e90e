// What skein bench serve measures; serve_bench.cc reads its options and prints.
#pragma once

#include <cstdint>
#include <string>

#include "skein/cli/bench_bars.h"
#include "skein/cli/common_options.h"

namespace skein {

struct ServeBenchOptions {
  std::string base = "models/smollm2.gguf";
  std::string library;
  int num_experts = 0;  // instead of a library: as many made ones
  std::string router = "phatgoose";
  std::string dtype;
  int base_bits = 0;
  std::string peer;  // llama-server
  int streams = 16;
  std::int64_t prompt_tokens = 64, new_tokens = 128;
  int rounds = 3;
  double seconds = 120;  // of arrivals; 0: none
  double minutes = 0;    // of load, instead of all else
  CommonOptions common;
};

// Each prints a line per measurement as it goes, adds its bars, and returns rows; the keys are those of --json. All
// throw Failure, also where a request fails.

// Generated tokens per second of one stream and of many, of the base, the peer and a routed library; then the time to
// the first token while requests arrive.
Json bench_throughput(const ServeBenchOptions& options, BenchBars& bars);
// Many streams for a long time, then more than the queue holds: errors, refusals, memory.
Json bench_long_load(const ServeBenchOptions& options, BenchBars& bars);

}  // namespace skein
