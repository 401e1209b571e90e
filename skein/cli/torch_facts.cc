#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include "skein/base/concat.h"
#include "skein/cli/build_facts.h"

namespace skein {

std::string torch_facts() {
  const auto& cuda = at::detail::getCUDAHooks();
  if (!cuda.hasCUDA()) return concat(SKEIN_TORCH_VERSION, ", no CUDA device");
  return concat(SKEIN_TORCH_VERSION, ", ", static_cast<int>(cuda.deviceCount()), " CUDA device(s)");
}

}  // namespace skein
