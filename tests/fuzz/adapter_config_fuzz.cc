// adapter_config.json from strangers, matched to a base of two layers. What was accepted is written as a config that
// means the same slots.
#include <cstdint>
#include <string>

#include "skein/io/json.h"
#include "skein/spec/lora_config.h"
#include "tests/fuzz/fuzz_base.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace skein;
  static const auto kSlots = slot_names(fuzz_base());
  const auto json = parse_json(std::string(reinterpret_cast<const char*>(data), size), "input");
  if (!json.ok()) return 0;
  const auto config = adapter_config_from_json(*json, "input");
  if (!config.ok()) return 0;
  const auto slots = match_slots(*config, kSlots);
  if (!slots.ok()) return 0;
  const auto again = adapter_config_from_json(adapter_config_to_json(*config), "again");
  if (!again.ok()) __builtin_trap();
  const auto same = match_slots(*again, kSlots);
  if (!same.ok() || same->size() != slots->size()) __builtin_trap();
  return 0;
}
