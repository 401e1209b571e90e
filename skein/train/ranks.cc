#include "skein/train/ranks.h"

#include <ATen/ops/empty.h>

#include "skein/base/check.h"

namespace skein {
namespace {

// All tensors behind each other, f32 on the CPU.
at::Tensor flat_copy(const std::vector<at::Tensor>& tensors) {
  std::int64_t total = 0;
  for (const at::Tensor& tensor : tensors) total += tensor.numel();
  const at::Tensor flat = at::empty({total}, at::kFloat);
  std::int64_t begin = 0;
  for (const at::Tensor& tensor : tensors) {
    SKEIN_CHECK(tensor.scalar_type() == at::kFloat);
    flat.narrow(0, begin, tensor.numel()).view(tensor.sizes()).copy_(tensor.detach());
    begin += tensor.numel();
  }
  return flat;
}

void take_apart(const at::Tensor& flat, const std::vector<at::Tensor>& tensors) {
  std::int64_t begin = 0;
  for (const at::Tensor& tensor : tensors) {
    tensor.detach().copy_(flat.narrow(0, begin, tensor.numel()).view(tensor.sizes()));
    begin += tensor.numel();
  }
}

std::span<float> values_of(const at::Tensor& flat) {
  return {flat.mutable_data_ptr<float>(), static_cast<std::size_t>(flat.numel())};
}

}  // namespace

Share share_of(const Comm& comm, std::int64_t count) {
  const std::int64_t rank = comm.rank(), size = comm.size();
  const std::int64_t first = count * rank / size;
  return {first, count * (rank + 1) / size - first};
}

void broadcast_from_root(Comm& comm, const std::vector<at::Tensor>& tensors) {
  if (comm.size() == 1) return;
  const at::Tensor flat = flat_copy(tensors);
  comm.broadcast(std::as_writable_bytes(values_of(flat)), 0);
  take_apart(flat, tensors);
}

void sum_over_ranks(Comm& comm, const std::vector<at::Tensor>& tensors) {
  if (comm.size() == 1) return;
  const at::Tensor flat = flat_copy(tensors);
  comm.all_reduce_sum(values_of(flat));
  take_apart(flat, tensors);
}

}  // namespace skein
