#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

namespace skein {

// A tensor of the model as it is computed with, shared with the backbone: what full fine-tuning changes in place.
struct ModelTensor {
  std::string name;  // Hugging Face's
  at::Tensor owner;  // where gradients arrive: the tensor itself, or the group of linears that it is a row range of
  std::int64_t first_row = 0, num_rows = 0;  // of owner
  double offset = 0;                         // the checkpoint holds owner - offset (Gemma's norms)
};

}  // namespace skein
