// Random adapters and gates over given slots, for tests and benchmarks.
#pragma once

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "skein/spec/expert_folder.h"

namespace skein {

inline std::vector<float> random_values(std::int64_t count, double deviation, std::mt19937_64& generator) {
  std::normal_distribution<double> normal(0, deviation);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = static_cast<float>(normal(generator));
  return values;
}

// Entries sized so that B A x is of the size of x. rank 0: the slot is left out.
inline LoraTensors random_lora(int slot_idx, const SlotName& slot, std::int64_t rank, std::mt19937_64& generator) {
  LoraTensors module{.slot_idx = slot_idx, .rank = rank, .scale = 0.5};
  module.a = random_values(rank * slot.d_in, 1 / std::sqrt(static_cast<double>(slot.d_in)), generator);
  module.b = random_values(slot.d_out * rank, 1 / std::sqrt(static_cast<double>(rank)), generator);
  return module;
}

// One rank for each slot.
inline LoraAdapter random_adapter(const std::vector<SlotName>& slots, const std::vector<std::int64_t>& ranks,
                                  std::mt19937_64& generator) {
  LoraAdapter adapter;
  for (int s = 0; s < static_cast<int>(slots.size()); ++s) {
    if (ranks[s] > 0) adapter.modules.push_back(random_lora(s, slots[s], ranks[s], generator));
  }
  return adapter;
}

inline GateFile random_gate(const std::vector<SlotName>& slots, std::mt19937_64& generator) {
  GateFile gate;
  gate.kind = "phatgoose";
  for (int s = 0; s < static_cast<int>(slots.size()); ++s) {
    gate.modules.push_back({.slot_idx = s, .directions = random_values(slots[s].d_in, 0.1, generator)});
  }
  return gate;
}

inline SlotName slot_named(const std::string& module, std::int64_t d_in, std::int64_t d_out) {
  return SlotName{.module = module, .d_in = d_in, .d_out = d_out, .kind = module.substr(module.rfind('.') + 1)};
}

}  // namespace skein
