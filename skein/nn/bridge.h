// The only crossing between torch-free tensors and at::Tensor.
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/base/tensor_view.h"
#include "skein/io/checkpoint.h"
#include "skein/nn/compute.h"

namespace skein {

c10::ScalarType to_torch(DType dtype);
DType from_torch(c10::ScalarType dtype);

// Reads one tensor of a checkpoint into `out`'s own memory (contiguous), in its dtype, without a copy in between on the
// CPU. Throws Failure if the tensor is absent or has another shape.
void load_into(const Checkpoint& checkpoint, const std::string& name, at::Tensor& out);
// The same into a new tensor of the stored shape, in compute dtype on the device.
at::Tensor load_tensor(const Checkpoint& checkpoint, const std::string& name, const ComputeOptions& compute);
// A copy of `values` as a tensor of `shape`, f32 on the CPU.
at::Tensor tensor_of(const std::vector<float>& values, const Shape& shape);
// A contiguous CPU tensor's bytes, borrowed while `tensor` lives.
TensorView view_of(const at::Tensor& tensor);
// Row-major f32 copy of any tensor.
std::vector<float> floats_of(const at::Tensor& tensor);

}  // namespace skein
