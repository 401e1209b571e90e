#include "skein/nn/large_pages.h"

#include <cstdlib>
#include <new>

#include <ATen/ATen.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace skein {

at::Tensor empty_on_large_pages(std::int64_t numel, c10::ScalarType dtype) {
  constexpr std::size_t kPage = std::size_t{2} << 20;
  const std::size_t bytes = static_cast<std::size_t>(numel) * c10::elementSize(dtype);
  const std::size_t rounded = (bytes + kPage - 1) / kPage * kPage;
  if (rounded == 0) return at::empty({numel}, at::TensorOptions().dtype(dtype));
  void* memory = std::aligned_alloc(kPage, rounded);
  if (memory == nullptr) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  madvise(memory, rounded, MADV_HUGEPAGE);  // a wish; without it the pages are small
#endif
  return at::from_blob(
      memory, {numel}, [](void* held) { std::free(held); }, at::TensorOptions().dtype(dtype));
}

}  // namespace skein
