#include "skein/nn/feed_forward.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "skein/base/check.h"
#include "skein/nn/kernels/tensor_rows.h"

namespace skein {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

at::Tensor gated(Activation activation, const at::Tensor& gate_input, const at::Tensor& up_input) {
  const at::Tensor gate = with_plain_rows(gate_input), up = with_plain_rows(up_input);
  at::Tensor y = at::empty(gate.sizes(), gate.options());
  const GateShape shape{element_of(gate), gate.size(1), activation};
  parallel_rows(gate.size(0), 4 * gate.size(1), [&](std::int64_t begin, std::int64_t end) {
    gate_rows(shape, rows_of(gate), rows_of(up), mutable_rows_of(y), begin, end);
  });
  return y;
}

// Keeps gate and up; the activation is computed again.
class FusedGate : public torch::autograd::Function<FusedGate> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate, const at::Tensor& up,
                            std::int64_t activation) {
    ctx->save_for_backward({gate, up});
    ctx->saved_data["activation"] = activation;
    return gated(static_cast<Activation>(activation), gate, up);
  }
  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    const tensor_list saved = ctx->get_saved_variables();
    const at::Tensor gate = with_plain_rows(saved[0]), up = with_plain_rows(saved[1]), grad = with_plain_rows(grads[0]);
    at::Tensor both = at::empty({gate.size(0), 2 * gate.size(1)}, gate.options());
    const at::Tensor grad_gate = both.narrow(1, 0, gate.size(1)), grad_up = both.narrow(1, gate.size(1), gate.size(1));
    const GateShape shape{element_of(gate), gate.size(1),
                          static_cast<Activation>(ctx->saved_data["activation"].toInt())};
    parallel_rows(gate.size(0), 6 * gate.size(1), [&](std::int64_t begin, std::int64_t end) {
      gate_rows_backward(shape, rows_of(gate), rows_of(up), rows_of(grad), mutable_rows_of(grad_gate),
                         mutable_rows_of(grad_up), begin, end);
    });
    return {grad_gate, grad_up, at::Tensor()};
  }
};

}  // namespace

at::Tensor activate(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kRelu:
      return at::relu(x);
  }
  check_failed("a known activation", __FILE__, __LINE__);
}

at::Tensor gate_with(Activation activation, const at::Tensor& gate, const at::Tensor& up) {
  if (!has_kernels(gate)) return activate(activation, gate) * up;
  const bool needs_grad = at::GradMode::is_enabled() && (gate.requires_grad() || up.requires_grad());
  return needs_grad ? FusedGate::apply(gate, up, static_cast<std::int64_t>(activation)) : gated(activation, gate, up);
}

}  // namespace skein
