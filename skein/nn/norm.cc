#include "skein/nn/norm.h"

#include <ATen/ATen.h>

namespace skein {

RmsNorm next_norm(WeightReader& weights, const BackboneConfig& config) {
  at::Tensor weight = weights.next(TensorRole::kNorm).to(c10::ScalarType::Float);
  if (config.norm_adds_one) weight = weight + 1;
  return RmsNorm{weight, config.norm_eps, !config.norm_adds_one};
}

at::Tensor RmsNorm::operator()(const at::Tensor& x) const {
  const at::Tensor wide = x.to(c10::ScalarType::Float);
  const at::Tensor normal = wide * at::rsqrt(wide.square().mean(-1, true) + eps);
  return rounds_before_weight ? normal.to(x.scalar_type()) * weight.to(x.scalar_type())
                              : (normal * weight).to(x.scalar_type());
}

}  // namespace skein
