// Trading time for memory in training: a block's activations are dropped after the forward pass and computed again in
// the backward pass (arXiv 1604.06174).
#pragma once

#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

namespace skein {

using BlockFunction = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

// block(inputs), keeping nothing but the inputs. In the backward pass block runs again with grad mode on; gradients of
// the inputs flow on, those of leaves it uses (a filler's parameters) are added to their .grad. So the loss must be
// differentiated with backward(), not with grad(). block: must compute the same both times, and what it refers to must
// live until the backward pass. Without grad mode it is block(inputs).
at::Tensor recompute(const BlockFunction& block, const std::vector<at::Tensor>& inputs);

}  // namespace skein
