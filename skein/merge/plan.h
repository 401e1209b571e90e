// What a merge will do, fixed before a byte is computed: every output tensor with its inputs, parameters, type, file
// and offset. The same recipe, inputs and options give the same plan, and so the same bytes.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/merge/method.h"
#include "skein/merge/recipe.h"
#include "skein/merge/source.h"
#include "skein/merge/tensor_inputs.h"
#include "skein/merge/tensor_reader.h"

namespace skein::merge {

struct PlanOptions {
  std::uint64_t shard_bytes = 5'000'000'000;  // a file of weights holds at most this (one larger tensor: more)
  std::uint64_t seed = 0;
  int num_workers = 1;
};

// Bytes of a method beside the tensor's own.
struct ExtraPlace {
  int file = 0;
  std::uint64_t offset = 0;
  int bits_per_element = 0;
};

struct OutputTensor {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::vector<std::shared_ptr<const TensorReader>> models;  // in the recipe's order
  std::shared_ptr<const TensorReader> base;                 // null: none
  std::vector<int> model_sources;                           // of `models`: index into Plan::sources
  int base_source = -1;
  bool is_copy = false;  // models[0] as it is; any others must have the same bytes
  int job = -1;          // index into Plan::jobs; -1 for copies
  int file = 0;          // index into Plan::files
  std::uint64_t offset = 0, num_bytes = 0;
  std::vector<ExtraPlace> extras;

  std::int64_t num_elements() const;
};

struct OutputFile {
  std::string name;
  std::string header;  // of safetensors; tensors follow
  std::uint64_t size_bytes = 0;
  bool is_weights = true;  // false: a method's extra output, in no index
};

struct DroppedTensor {
  std::string model;  // as the recipe names it
  std::string name;
  std::string why;
};

struct Plan {
  const Recipe* recipe = nullptr;
  const MethodInfo* method = nullptr;
  PlanOptions options;
  std::vector<std::unique_ptr<Source>> sources;  // one per recipe->models()
  std::vector<OutputTensor> tensors;             // in the order of their names
  std::vector<OutputFile> files;
  std::deque<MethodParameters> parameters;  // one per job
  std::vector<TensorJob> jobs;
  std::unique_ptr<ModelMerge> model;           // the method at work
  std::map<std::string, std::int64_t> stacks;  // layers of the output
  std::vector<DroppedTensor> dropped;          // inputs that no output is made of
  std::vector<std::string> warnings;
  std::string digest;  // of all that decides the output's bytes, but the inputs' contents: their headers only

  std::vector<InputFile> input_files() const;
  std::uint64_t weight_bytes() const;  // of all tensors
  std::uint64_t read_bytes() const;    // of one pass over all inputs
};

// Replaces the readers of a tensor before they are used: a vocabulary aligned, an adapter folded. Gets the tensor with
// models, base and sources in place.
using AdjustInputs = std::function<Status(OutputTensor&)>;

// recipe outlives the plan; sources are one per recipe.models().
Result<std::unique_ptr<Plan>> make_plan(const Recipe& recipe, std::vector<std::unique_ptr<Source>> sources,
                                        const PlanOptions& options, const AdjustInputs& adjust = {});

// The names that can stand under `parameters` of a recipe with this method: unknown ones are errors, those of other
// methods warnings.
Status check_parameter_names(const Recipe& recipe, const MethodInfo& method, std::vector<std::string>& warnings);
// The method, or an error with the nearest name.
Result<const MethodInfo*> method_of(const Recipe& recipe);

}  // namespace skein::merge
