// Which input tensors make each output tensor, and which levels of the recipe its parameters come from.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/merge/recipe.h"
#include "skein/merge/source.h"

namespace skein::merge {

struct TensorInput {
  int source = 0;    // index into the merge's sources
  std::string name;  // of the tensor there
  bool is_base = false;
  const Settings* own = nullptr;  // of the model or slice source; null: none
};

struct TensorInputs {
  std::string name;                 // of the output tensor
  double t = 0;                     // depth within its slice, for gradients
  std::vector<TensorInput> inputs;  // every source of the slice that has the tensor, in the recipe's order
  std::vector<int> without;         // sources of the slice that lack it
  bool wants_base = false;          // the recipe names a base for it (which may lack the tensor)
  const Settings* slice = nullptr;  // null: none
  const Settings* module = nullptr;
};

struct InputLayout {
  std::vector<TensorInputs> tensors;           // sorted by name
  std::map<std::string, std::int64_t> stacks;  // of the output: name -> layers
};

// sources: one per recipe.models(), in that order. The pointers in the result point into `recipe`.
Result<InputLayout> lay_out_inputs(const Recipe& recipe, const std::vector<std::unique_ptr<Source>>& sources);

}  // namespace skein::merge
