#include "skein/nn/bridge.h"

#include <cstring>

#include <ATen/ATen.h>

#include "skein/base/check.h"
#include "skein/base/concat.h"

namespace skein {

c10::ScalarType to_torch(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return c10::ScalarType::Double;
    case DType::kF32:
      return c10::ScalarType::Float;
    case DType::kF16:
      return c10::ScalarType::Half;
    case DType::kBF16:
      return c10::ScalarType::BFloat16;
    case DType::kF8E4M3:
      return c10::ScalarType::Float8_e4m3fn;
    case DType::kF8E5M2:
      return c10::ScalarType::Float8_e5m2;
    case DType::kI64:
      return c10::ScalarType::Long;
    case DType::kI32:
      return c10::ScalarType::Int;
    case DType::kI16:
      return c10::ScalarType::Short;
    case DType::kI8:
      return c10::ScalarType::Char;
    case DType::kU64:
      return c10::ScalarType::UInt64;
    case DType::kU32:
      return c10::ScalarType::UInt32;
    case DType::kU16:
      return c10::ScalarType::UInt16;
    case DType::kU8:
      return c10::ScalarType::Byte;
    case DType::kBool:
      return c10::ScalarType::Bool;
  }
  check_failed("a known dtype", __FILE__, __LINE__);
}

DType from_torch(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::ScalarType::Double:
      return DType::kF64;
    case c10::ScalarType::Float:
      return DType::kF32;
    case c10::ScalarType::Half:
      return DType::kF16;
    case c10::ScalarType::BFloat16:
      return DType::kBF16;
    case c10::ScalarType::Float8_e4m3fn:
      return DType::kF8E4M3;
    case c10::ScalarType::Float8_e5m2:
      return DType::kF8E5M2;
    case c10::ScalarType::Long:
      return DType::kI64;
    case c10::ScalarType::Int:
      return DType::kI32;
    case c10::ScalarType::Short:
      return DType::kI16;
    case c10::ScalarType::Char:
      return DType::kI8;
    case c10::ScalarType::UInt64:
      return DType::kU64;
    case c10::ScalarType::UInt32:
      return DType::kU32;
    case c10::ScalarType::UInt16:
      return DType::kU16;
    case c10::ScalarType::Byte:
      return DType::kU8;
    case c10::ScalarType::Bool:
      return DType::kBool;
    default:
      check_failed("a dtype that files can hold", __FILE__, __LINE__);
  }
}

void load_into(const Checkpoint& checkpoint, const std::string& name, at::Tensor& out) {
  const TensorInfo* info = checkpoint.find(name);
  if (info == nullptr) {
    throw Failure(Error{concat(checkpoint.path(), ": no tensor ", printable(name), "; expected one of shape ",
                               to_string(out.sizes().vec()), "; the file may be of another model")});
  }
  if (info->shape != out.sizes().vec()) {
    throw Failure(Error{concat(checkpoint.path(), ": tensor ", printable(name), " has shape ", to_string(info->shape),
                               "; expected ", to_string(out.sizes().vec()), "; the file may be of another model")});
  }
  if (out.device().is_cpu()) {
    SKEIN_CHECK(out.is_contiguous());
    or_throw(checkpoint.read(name, from_torch(out.scalar_type()),
                             std::span(static_cast<std::byte*>(out.data_ptr()), out.nbytes())));
    return;
  }
  at::Tensor staged = at::empty(out.sizes(), at::TensorOptions().dtype(out.scalar_type()));
  load_into(checkpoint, name, staged);
  out.copy_(staged);
}

at::Tensor load_tensor(const Checkpoint& checkpoint, const std::string& name, const ComputeOptions& compute) {
  const TensorInfo* info = checkpoint.find(name);
  if (info == nullptr) throw Failure(Error{concat(checkpoint.path(), ": no tensor ", printable(name))});
  at::Tensor tensor = at::empty(info->shape, at::TensorOptions().dtype(compute.dtype).device(compute.device));
  load_into(checkpoint, name, tensor);
  return tensor;
}

at::Tensor tensor_of(const std::vector<float>& values, const Shape& shape) {
  at::Tensor tensor = at::empty(shape, at::TensorOptions().dtype(c10::ScalarType::Float));
  SKEIN_CHECK(tensor.numel() == static_cast<std::int64_t>(values.size()));
  if (!values.empty()) std::memcpy(tensor.data_ptr(), values.data(), values.size() * sizeof(float));
  return tensor;
}

TensorView view_of(const at::Tensor& tensor) {
  SKEIN_CHECK(tensor.device().is_cpu() && tensor.is_contiguous());
  return TensorView{from_torch(tensor.scalar_type()), tensor.sizes().vec(),
                    std::span(static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes())};
}

std::vector<float> floats_of(const at::Tensor& tensor) {
  const at::Tensor plain = tensor.detach().to(c10::Device(c10::DeviceType::CPU), c10::ScalarType::Float).contiguous();
  const float* begin = plain.const_data_ptr<float>();
  return std::vector<float>(begin, begin + plain.numel());
}

}  // namespace skein
