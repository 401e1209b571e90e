#include "skein/io/safetensors.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace skein;
  const auto env = env_with_input(data, size);
  const auto checkpoint = open_safetensors(*env, "input", adapter_limits());
  if (!checkpoint.ok()) return 0;
  for (const auto& info : (*checkpoint)->tensors()) {
    if (!is_floating(info.dtype)) continue;
    std::vector<std::byte> out(2 * static_cast<std::size_t>(*checked_numel(info.shape)));
    SKEIN_CHECK((*checkpoint)->read(info.name, DType::kBF16, out).ok());
  }
  return 0;
}
