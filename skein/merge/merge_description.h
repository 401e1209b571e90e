// A plan for people and for programs: what --dry-run prints.
#pragma once

#include <string>

#include "skein/io/json.h"
#include "skein/merge/executor.h"
#include "skein/merge/plan.h"

namespace skein::merge {

std::string plan_as_text(const Plan& plan, const MemoryPlan& memory);
Json plan_as_json(const Plan& plan, const MemoryPlan& memory);

// A guess from bytes alone, at rates measured on a machine with one NVMe disk.
double estimated_seconds(const Plan& plan, const MemoryPlan& memory);

}  // namespace skein::merge
