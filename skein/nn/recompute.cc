#include "skein/nn/recompute.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

namespace skein {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

struct BlockHolder : torch::CustomClassHolder {
  explicit BlockHolder(BlockFunction held) : block(std::move(held)) {}
  BlockFunction block;
};

class Recompute : public torch::autograd::Function<Recompute> {
 public:
  // anchor: requires a gradient, so that the output does, even where only leaves inside the block want one.
  static at::Tensor forward(AutogradContext* ctx, const BlockFunction& block, const at::Tensor& anchor,
                            at::TensorList inputs) {
    ctx->save_for_backward(inputs.vec());
    const auto holder = c10::make_intrusive<BlockHolder>(block);
    ctx->saved_data["block"] = c10::IValue::make_capsule(holder);
    (void)anchor;
    return holder->block(inputs.vec());  // grad mode is off inside a Function's forward
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    const tensor_list saved = ctx->get_saved_variables();
    const auto holder = ctx->saved_data["block"].toCapsule();
    tensor_list inputs;
    for (const at::Tensor& input : saved) inputs.push_back(input.detach().requires_grad_(input.requires_grad()));
    at::Tensor output;
    {
      const at::AutoGradMode grad_on(true);
      output = static_cast<const BlockHolder*>(holder.get())->block(inputs);
    }
    // The graph is kept for what blocks share (T5's position biases), and goes with `output`.
    if (output.requires_grad()) torch::autograd::backward({output}, {grads[0]}, /*retain_graph=*/true);
    tensor_list input_grads{at::Tensor(), at::Tensor()};  // of block and anchor
    for (const at::Tensor& input : inputs) input_grads.push_back(input.grad());
    return input_grads;
  }
};

}  // namespace

at::Tensor recompute(const BlockFunction& block, const std::vector<at::Tensor>& inputs) {
  if (!at::GradMode::is_enabled()) return block(inputs);
  const at::Tensor anchor = at::empty({0}, inputs.front().options()).requires_grad_(true);
  return Recompute::apply(block, anchor, at::TensorList(inputs));  // a vector would not be seen as variables
}

}  // namespace skein
