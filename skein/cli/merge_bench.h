// What skein bench merge measures; merge_bench.cc reads its options and prints.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/cli/common_options.h"
#include "skein/io/json.h"

namespace skein {

struct MergeBenchOptions {
  std::string base;                    // empty: a made one
  std::string shape = "smollm2-135m";  // of the made one
  int num_models = 4;
  std::vector<std::string> methods;  // empty: what the measurement likes
  int rounds = 3;
  std::string peer;  // mergekit-yaml; empty: where PATH has it
  std::string work;  // models and outputs; empty: a folder that is removed at the end
  bool line = false;
  std::string against_cp;  // a folder on the disk to be measured
  double gigabytes = 3;    // of one of its models
  std::string memory;      // --memory of the merges; empty: its default
  CommonOptions common;
};

// What a recipe is made of.
struct BenchRecipe {
  std::string method;
  std::string base;  // a folder; given where the method takes one
  std::vector<std::string> models;
  std::int64_t layers = 0;  // only the first so many; 0: all
};
bool takes_base(const std::string& method);
std::string recipe_text(const BenchRecipe& recipe);

// The words of one merge by this program, as a child.
std::vector<std::string> merge_words(const MergeBenchOptions& options, const std::string& recipe,
                                     const std::string& out);
// The base and its `count` fine-tunes below `work`, made where they are not there yet.
struct BenchInputs {
  std::string base;
  std::vector<std::string> tuned;
};
Result<BenchInputs> bench_inputs(const MergeBenchOptions& options, const std::string& work, int count);
// Reads a model's files once, so that they are in the page cache.
Status warm_up(const std::string& folder);

// Each prints a line per measurement as it goes and returns rows; the keys are those of --json.
Result<Json> bench_beside_mergekit(const MergeBenchOptions& options, const std::string& work);
Result<Json> bench_line(const MergeBenchOptions& options, const std::string& work);
Result<Json> bench_against_cp(const MergeBenchOptions& options, const std::string& work);

}  // namespace skein
