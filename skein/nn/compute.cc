#include "skein/nn/compute.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include "skein/base/concat.h"
#include "skein/base/thread_pool.h"

namespace skein {
namespace {

Result<c10::Device> parse_device(const std::string& name) {
  const bool has_cuda = at::hasCUDA();
  if (name.empty()) return c10::Device(has_cuda ? c10::DeviceType::CUDA : c10::DeviceType::CPU);
  if (name == "cpu") return c10::Device(c10::DeviceType::CPU);
  const std::string_view digits = std::string_view(name).starts_with("cuda:") ? std::string_view(name).substr(5) : "";
  const bool numbered = !digits.empty() && digits.size() <= 3 && digits.find_first_not_of("0123456789") == digits.npos;
  if (name != "cuda" && !numbered) {
    return Error{concat("--device ", printable(name), ": unknown device; expected cpu, cuda or cuda:K"),
                 ErrorKind::kUsage};
  }
  if (!has_cuda) {
    return Error{concat("--device ", name,
                        ": no CUDA device here; expected one, or --device cpu (a CPU build of libtorch ", "sees none)"),
                 ErrorKind::kUsage};
  }
  const int device_idx = numbered ? std::stoi(std::string(digits)) : 0;
  const int num_devices = static_cast<int>(at::getNumGPUs());
  if (device_idx >= num_devices) {
    return Error{concat("--device ", name, ": there are ", num_devices, " CUDA devices; expected an index below that"),
                 ErrorKind::kUsage};
  }
  return c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device_idx));
}

// Whether matrix products in bf16 run at the device's full speed (AVX512-BF16, AMX; CUDA from compute capability 8).
bool computes_bf16_natively(const c10::Device& device) {
  if (device.is_cuda()) return at::detail::getCUDAHooks().supportsBFloat16ConvolutionWithCuDNNv8();
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") > 0;
#else
  return false;
#endif
}

}  // namespace

Result<ComputeOptions> compute_options(const std::string& device, const std::string& dtype) {
  SKEIN_ASSIGN(const c10::Device found, parse_device(device));
  if (dtype.empty()) {
    return ComputeOptions{found, computes_bf16_natively(found) ? c10::ScalarType::BFloat16 : c10::ScalarType::Float};
  }
  if (dtype == "f32") return ComputeOptions{found, c10::ScalarType::Float};
  if (dtype == "bf16") return ComputeOptions{found, c10::ScalarType::BFloat16};
  return Error{concat("--dtype ", printable(dtype), ": unknown type; expected f32 or bf16"), ErrorKind::kUsage};
}

void set_compute_threads(int num_threads) {
  const int threads = num_threads > 0 ? num_threads : available_cores();
  set_num_threads(threads);
  at::set_num_threads(threads);
}

}  // namespace skein
