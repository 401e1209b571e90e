#include "skein/io/gguf.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace skein;
  const auto env = env_with_input(data, size);
  const auto file = GgufFile::open(*env, "input");
  if (!file.ok()) return 0;
  for (const auto& tensor : (*file)->tensors()) {
    std::vector<float> out(static_cast<std::size_t>(*checked_numel(tensor.shape)));
    dequantize_rows(tensor, 0, static_cast<std::int64_t>(out.size()) / tensor.shape.back(), out.data());
  }
  return 0;
}
