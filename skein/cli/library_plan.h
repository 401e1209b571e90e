// The plan of skein train library: which experts, with which options. Format: docs/formats/training-plan.md.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/cli/train_flags.h"
#include "skein/io/env.h"

namespace skein {

struct PlannedExpert {
  std::string name;
  // As if typed: skein train expert ..., skein train gate ...; the paper's rules taken.
  std::unique_ptr<TrainFlags> expert, gate;
  std::int64_t cost() const;  // sequences trained on
};

struct LibraryPlan {
  std::string base, out, work;
  std::string dtype, device;
  bool recompute = false;
  int base_bits = 0;
  std::vector<PlannedExpert> experts;
};

// Throws Failure: what is wrong, with its line. common: of the command, for every job.
LibraryPlan read_library_plan(Env& env, const std::string& path, const CommonOptions& common);

// Which rank trains which expert: the largest first, each to the rank with the least so far. costs[i] 0: finished, no
// work. [rank] -> indices in order.
std::vector<std::vector<std::size_t>> deal_out(const std::vector<std::int64_t>& costs, int ranks);

}  // namespace skein
