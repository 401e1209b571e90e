// Hands out a model's weights in the order in which its modules are declared, read straight into their final tensors.
//
// No name is spelled here: spec/tensor_names.h lists a model's tensors in forward order, and a module asks for "the
// next norm" or "the next three linears". Shapes, slots and completeness are checked against the list, so a module that
// asks for the wrong thing cannot load (SKEIN_CHECK: the program's own fault). Throws Failure where the file is at
// fault.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/base/progress.h"
#include "skein/nn/compute.h"
#include "skein/nn/linear.h"
#include "skein/nn/model_tensor.h"
#include "skein/nn/quantised_weight.h"
#include "skein/nn/token_table.h"
#include "skein/spec/base_model.h"
#include "skein/spec/tensor_names.h"

namespace skein {

class WeightReader {
 public:
  // base: borrowed while the reader lives.
  WeightReader(const BaseModel& base, const ComputeOptions& compute);

  at::Tensor next(TensorRole role);        // in compute dtype
  TokenTable next_table(TensorRole role);  // the embedding or the head
  // The next `count` linears as one group; biased: each has a bias.
  LinearGroup next_linears(int count, bool biased = false);
  bool has_next(TensorRole role) const;
  // The tensor handed out last is computed with as `tensor`, which holds its values plus offset.
  void replace_last(const at::Tensor& tensor, double offset);
  const std::vector<ModelTensor>& tensors() const { return tensors_; }
  void finish();  // every tensor of the list was handed out

 private:
  const TensorName& take(TensorRole role);
  at::Tensor allocate(const Shape& shape);                    // in the arena
  QuantisedOptions quantised(const Shape& matrix, int bits);  // in the arena of few bits
  void read(const TensorName& name, at::Tensor out);

  const BaseModel& base_;
  ComputeOptions compute_;
  std::map<TensorRole, std::vector<TensorName>> names_;  // per role, in forward order
  std::map<TensorRole, std::size_t> taken_;
  std::vector<SlotName> slots_;
  at::Tensor arena_;  // all weights in forward order, as a pass reads them
  std::int64_t used_ = 0;
  at::Tensor code_arena_;  // with base_bits: the matrices
  std::int64_t used_code_bytes_ = 0;
  std::vector<ModelTensor> tensors_;  // handed out
  Progress progress_;
  std::int64_t num_read_ = 0;
};

}  // namespace skein
