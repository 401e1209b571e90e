// A merge method on dense deltas in memory: adapters' products merged as the fine-tunes they stand for, without a base.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "skein/base/result.h"
#include "skein/merge/method.h"

namespace skein::merge {

// The deltas of job `job_idx`, one per model, each of the job's size: f32.
using DeltasOf = std::function<std::vector<std::vector<float>>(std::size_t job_idx)>;

// Runs the method with a base of zeros (where it takes one), job after job, and hands each result over: what fine-tunes
// base + delta would give, less the base. Peak memory is that of the deltas of one job. jobs: with num_models, shape,
// parameters and seed set; has_base is set here.
Status merge_deltas(const MethodInfo& method, std::vector<TensorJob> jobs, const DeltasOf& deltas_of,
                    const std::function<Status(std::size_t job_idx, std::vector<float> merged)>& on_merged);

}  // namespace skein::merge
