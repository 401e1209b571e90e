// skein bench train: training beside PEFT, and the costs of mixtures and gates beside an expert's.
//
// Every measurement is a process of its own (this program again, with --one), so that its peak memory is its own.
#pragma once

#include "skein/cli/verbs.h"

namespace skein {

void add_train_bench(CLI::App& bench, Job& job);

}  // namespace skein
