// Where and in which precision a model computes.
#pragma once

#include <string>

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "skein/base/result.h"

namespace skein {

struct ComputeOptions {
  c10::Device device = c10::Device(c10::DeviceType::CPU);
  c10::ScalarType dtype = c10::ScalarType::Float;  // weights and activations: Float or BFloat16
  int base_bits = 0;  // of the frozen matrices: 8 or 4 (nn/quantised_weight.h, CPU); 0: dtype's
  // With base_bits and bf16, where no gradient is asked for: what enters a product is rounded to 8 bits, for speed.
  bool eight_bit_inputs = false;
};

// device: "cpu", "cuda", "cuda:K" or "" (cuda if there is one); dtype: "f32", "bf16" or "" (bf16 where the device
// computes in it natively, else f32). kUsage on anything else, and on a device that is not there.
Result<ComputeOptions> compute_options(const std::string& device, const std::string& dtype);
// --threads: of libtorch and of parallel_for. 0: the cores this process may use.
void set_compute_threads(int num_threads);

}  // namespace skein
