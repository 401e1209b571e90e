// config.json from strangers. What was accepted names its tensors and is written as a config that is accepted again.
#include <cstdint>
#include <string>

#include "skein/io/json.h"
#include "skein/spec/tensor_names.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace skein;
  const auto json = parse_json(std::string(reinterpret_cast<const char*>(data), size), "input");
  if (!json.ok()) return 0;
  const auto config = config_from_json(*json, "input");
  if (!config.ok() || config->num_layers + config->num_decoder_layers > 100) return 0;  // long lists are slow, no more
  (void)tensor_names(*config);
  (void)slot_names(*config);
  if (!config_from_json(config_to_json(*config, "float32"), "again").ok()) __builtin_trap();
  return 0;
}
