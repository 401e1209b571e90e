// A frozen linear of the backbone, and linears that read the same input side by side.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

namespace skein {

class QuantisedWeight;
struct QuantisedOptions;

struct FrozenLinear {
  int slot_idx = -1;  // place in slot_names(config)
  at::Tensor weight;  // (D_out, D_in), a row range of the group's weight
  at::Tensor bias;    // (D_out), or undefined
};

// q, k, v of one attention, gate and up of one feed-forward: one product for all of them when no expert is attached.
struct LinearGroup {
  at::Tensor weight;                // (sum of D_out, D_in); on the meta device, a shape alone, where it is quantised
  at::Tensor bias;                  // (sum of D_out), or undefined
  std::vector<FrozenLinear> parts;  // views of the above, in row order
  std::shared_ptr<const QuantisedWeight> quantised;  // null: weight holds the numbers
};

// Parts of `rows` outputs each as views of a grouped weight and bias that are there already.
LinearGroup group_of(at::Tensor weight, at::Tensor bias, const std::vector<std::int64_t>& rows,
                     const std::vector<int>& slot_idxs);
// weights, biases (undefined: none) and slots in order; copies them into one tensor.
LinearGroup make_linear_group(const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
                              const std::vector<int>& slot_idxs);
// Its weights in few bits from now on and no longer in any other form; dtype: of what will be computed with them. On
// the CPU.
void quantise(LinearGroup& group, c10::ScalarType dtype, const QuantisedOptions& options);
// x (N, D_in) -> one (N, D_out) per part. The outputs may be strided views of one tensor.
std::vector<at::Tensor> apply_frozen(const LinearGroup& group, const at::Tensor& x);
// The same, and `beside()` once: by the calling thread while the others begin the product, which it then joins. For
// work that is short, needs x alone and would keep one thread busy; whoever shares it out inside gets one thread.
std::vector<at::Tensor> apply_frozen(const LinearGroup& group, const at::Tensor& x,
                                     const std::function<void()>& beside);
// The gradient of x from those of apply_frozen's outputs (undefined: none); undefined if there is none at all.
at::Tensor frozen_gradient(const LinearGroup& group, const std::vector<at::Tensor>& grads);
// x (N, D_in) f32 or bf16, bias (D_out) of x's type or undefined -> (N, D_out). A gradient for x alone.
at::Tensor quantised_linear(const at::Tensor& x, const std::shared_ptr<const QuantisedWeight>& weight,
                            const at::Tensor& bias);
// x (N, D_in), weight (D_out, D_in), bias (D_out) or undefined -> (N, D_out). A gradient for weight and bias
// only if they were thawed.
at::Tensor frozen_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace skein
