#include "skein/io/pickle.h"
#include "skein/io/torch_archive.h"
#include "tests/fuzz/fuzz_file.h"

// Bytes that begin as a zip does are an archive, all others a bare pickle, which a checksum would keep the fuzzer from.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace skein;
  if (size > 0 && data[0] == 'P') {
    (void)TorchArchive::open(*env_with_input(data, size), "input");
  } else {
    (void)parse_pickle(std::as_bytes(std::span(data, size)), "input");
  }
  return 0;
}
