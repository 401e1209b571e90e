#include "skein/nn/feed_forward.h"

#include <ATen/ATen.h>

#include "skein/base/check.h"

namespace skein {

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
  return activate(activation, gate) * up;
}

}  // namespace skein
