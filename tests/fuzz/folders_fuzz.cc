// library.json and mixture.json, which come with experts of others.
#include "skein/io/safetensors.h"
#include "skein/spec/library.h"
#include "skein/spec/mixture_folder.h"
#include "tests/fuzz/fuzz_base.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace skein;
  static const auto kBase = fuzz_base();
  const auto env = make_memory_env();
  or_throw(env->make_folders("f"));
  for (const char* name : {"f/library.json", "f/mixture.json"}) {
    or_throw(or_throw(env->create(name))->append(std::as_bytes(std::span(data, size))));
  }
  or_throw(write_safetensors(*env, "f/mixture.safetensors", {}));
  if (const auto library = open_library(*env, "f"); library.ok()) (void)check_library(*env, *library);
  (void)read_mixture(*env, "f", kBase);
  return 0;
}
