// skein train library: a farm of experts and gates over the ranks of a job, and the library they become.
#pragma once

#include "skein/cli/verbs.h"

namespace skein {

void add_train_library(CLI::App& train_verb, Job& job);

}  // namespace skein
