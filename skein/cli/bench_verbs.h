// The benchmarks of skein bench. How to add one: bench_command.cc.
#pragma once

#include "skein/cli/verbs.h"

namespace skein {

void add_merge_bench(CLI::App& bench, Job& job);
// Every measurement is a process of its own (this program again, with --one), so that its peak memory is its own.
void add_train_bench(CLI::App& bench, Job& job);
void add_serve_bench(CLI::App& bench, Job& job);

}  // namespace skein
