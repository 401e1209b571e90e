// model.safetensors.index.json from strangers, beside two true shards.
#include "fuzz_file.h"
#include "skein/io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace skein;
  const auto env = make_memory_env();
  if (!env->make_folders("model").ok()) return 0;
  const std::byte bytes[8] = {};
  for (const char* name : {"a", "b"}) {
    const NamedTensor tensor{name, TensorView{DType::kF32, {2}, bytes}};
    if (!write_safetensors(*env, std::string("model/") + name + ".safetensors", {tensor}).ok()) return 0;
  }
  if (auto file = env->create("model/model.safetensors.index.json"); file.ok()) {
    (void)(*file)->append({reinterpret_cast<const std::byte*>(data), size});
  }
  const auto model = open_safetensors_folder(*env, "model");
  if (!model.ok()) return 0;
  for (const auto& info : (*model)->tensors()) {
    const auto location = (*model)->location(info.name);
    if (!location || location->offset == 0) __builtin_trap();
  }
  return 0;
}
