// Who was chosen: k experts per token with their weights.
#pragma once

#include <ATen/core/Tensor.h>

namespace skein {

struct Mixture {
  at::Tensor ids;      // (N, k) int32, expert_idx; slots of weight 0 may hold any id
  at::Tensor weights;  // (N, k) f32
};

}  // namespace skein
