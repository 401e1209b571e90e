// A recipe of tests/golden/merge, Skein's output for it and mergekit's.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "skein/base/dtype.h"
#include "skein/base/shape.h"
#include "skein/merge/input_alignment.h"
#include "skein/merge/plan.h"

namespace skein::merge::agreement {

std::string golden_folder();  // tests/golden/merge, with "/" at its end

struct Tensor {
  DType dtype = DType::kF32;  // as stored
  Shape shape;
  std::vector<float> values;
};
using Tensors = std::map<std::string, Tensor>;

Tensors read_tensors(const std::string& path);  // a file, or a folder of shards
std::vector<std::string> recipe_names();        // of recipes/, sorted

// Runs run_merge on a recipe file into a folder that is removed afterwards; look: what else to see there before.
Tensors merge_with_skein(const std::string& recipe_path, std::uint64_t seed = 0,
                         const std::function<void(const std::string& folder)>& look = {});
// The same recipe planned only: its jobs with their parameters, its tensors with their readers.
struct Planned {
  Recipe recipe;
  std::unique_ptr<InputAlignment> alignment;
  std::unique_ptr<Plan> plan;
};
std::unique_ptr<Planned> plan_of(const std::string& recipe_path, std::uint64_t seed = 0);

std::vector<float> read_input(const TensorReader& reader);

// Spacing of the type's numbers at 1: 2^-7 for bf16, 2^-10 for f16, 2^-23 for f32.
double epsilon_of(DType dtype);
// How many of the type's numbers apart two values of it are.
std::int64_t ulps_between(float a, float b, DType dtype);

}  // namespace skein::merge::agreement
