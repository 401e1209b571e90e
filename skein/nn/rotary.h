// Rotary position embedding (arXiv 2104.09864) on halves, as Hugging Face lays heads out: dimension i turns with i +
// Dh/2.
#pragma once

#include <ATen/core/Tensor.h>

#include "skein/spec/backbone_config.h"

namespace skein {

// cos and sin of the angles of each row, (N, Dh/2) f32. Made once per pass, used by every layer.
struct RotaryTable {
  at::Tensor cos, sin;
};

class Rotary {
 public:
  // base: the config's rope_theta (full layers, with its scaling) or rope_theta_local (no scaling).
  static Rotary full(const BackboneConfig& config, const c10::Device& device);
  static Rotary local(const BackboneConfig& config, const c10::Device& device);

  RotaryTable table(const at::Tensor& positions) const;  // positions (N) int64

 private:
  at::Tensor inverse_frequencies_;  // (Dh/2) f32
};

// x (N, H, Dh) -> the same, each head turned by its row's angles. Differentiable in x.
at::Tensor rotate(const at::Tensor& x, const RotaryTable& table);

}  // namespace skein
