#include "skein/nn/rotary.h"

#include <cmath>
#include <numbers>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "skein/nn/bridge.h"
#include "skein/nn/kernels/tensor_rows.h"

namespace skein {
namespace {

// theta_i = base^(-2i/Dh), in f32 as transformers computes it.
std::vector<float> frequencies(double base, std::int64_t d_head) {
  std::vector<float> inverse;
  for (std::int64_t i = 0; i < d_head; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(d_head);
    inverse.push_back(1.0F / std::pow(static_cast<float>(base), exponent));
  }
  return inverse;
}

// Llama 3's scaling: long wavelengths are stretched by `factor`, short ones kept, those between interpolated.
float scale_llama3(float frequency, const BackboneConfig::Llama3Rope& rope) {
  const double original = static_cast<double>(rope.original_positions);
  const double wavelength = 2 * std::numbers::pi / frequency;
  if (wavelength < original / rope.high_freq_factor) return frequency;
  if (wavelength > original / rope.low_freq_factor) return static_cast<float>(frequency / rope.factor);
  const double smooth = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return static_cast<float>((1 - smooth) * frequency / rope.factor + smooth * frequency);
}

at::Tensor on_device(const std::vector<float>& values, const c10::Device& device) {
  return tensor_of(values, {static_cast<std::int64_t>(values.size())}).to(device);
}

at::Tensor turn_rows(const at::Tensor& input, const at::Tensor& cos, const at::Tensor& sin, bool inverse) {
  const at::Tensor x = with_plain_rows(input);  // (N, H, Dh)
  at::Tensor y = at::empty(x.sizes(), x.options());
  const RotaryShape shape{element_of(x), x.size(1), x.size(2) / 2, inverse};
  parallel_rows(x.size(0), x.size(1) * x.size(2), [&](std::int64_t begin, std::int64_t end) {
    rotate_rows(shape, rows_of(x), cos.const_data_ptr<float>(), sin.const_data_ptr<float>(), mutable_rows_of(y), begin,
                end);
  });
  return y;
}

// A turn's gradient is the turn back: nothing of x is kept.
class Turn : public torch::autograd::Function<Turn> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin) {
    ctx->save_for_backward({cos, sin});
    return turn_rows(x, cos, sin, false);
  }
  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* ctx,
                                               torch::autograd::tensor_list grads) {
    const torch::autograd::tensor_list saved = ctx->get_saved_variables();
    return {turn_rows(grads[0], saved[0], saved[1], true), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

Rotary Rotary::full(const BackboneConfig& config, const c10::Device& device) {
  std::vector<float> inverse = frequencies(config.rope_theta, config.d_head);
  for (float& frequency : inverse) {
    frequency = static_cast<float>(frequency / config.rope_linear_factor);
    if (config.rope_llama3) frequency = scale_llama3(frequency, *config.rope_llama3);
  }
  Rotary rotary;
  rotary.inverse_frequencies_ = on_device(inverse, device);
  return rotary;
}

Rotary Rotary::local(const BackboneConfig& config, const c10::Device& device) {
  Rotary rotary;
  rotary.inverse_frequencies_ = on_device(frequencies(config.rope_theta_local, config.d_head), device);
  return rotary;
}

RotaryTable Rotary::table(const at::Tensor& positions) const {
  const at::Tensor angles = positions.to(c10::ScalarType::Float).unsqueeze(1) * inverse_frequencies_;  // (N, Dh/2)
  return RotaryTable{angles.cos(), angles.sin()};
}

at::Tensor rotate(const at::Tensor& x, const RotaryTable& table) {
  if (has_kernels(x)) {
    const bool needs_grad = at::GradMode::is_enabled() && x.requires_grad();
    return needs_grad ? Turn::apply(x, table.cos, table.sin) : turn_rows(x, table.cos, table.sin, false);
  }
  const std::int64_t half = x.size(-1) / 2;
  const at::Tensor wide = x.to(c10::ScalarType::Float);
  const at::Tensor first = wide.narrow(-1, 0, half), second = wide.narrow(-1, half, half);  // (N, H, Dh/2)
  const at::Tensor cos = table.cos.unsqueeze(1), sin = table.sin.unsqueeze(1);              // (N, 1, Dh/2)
  return at::cat({first * cos - second * sin, second * cos + first * sin}, -1).to(x.scalar_type());
}

}  // namespace skein
