// Expert folders of tests/golden/agreement/experts, as what stands in a backbone's slots.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "skein/experts/trainable_lora.h"
#include "skein/nn/backbone.h"
#include "skein/route/routed_slot.h"
#include "skein/spec/expert_folder.h"

namespace skein::agreement {

std::string base_of(const std::string& expert);  // "llama_3" -> "llama", "t5_0" -> "t5_v11"
LoraAdapter read_expert(const std::string& name, const std::vector<SlotName>& slots);
RouterOptions single_expert(const std::string& name);
// The named experts with their gates behind a router.
std::unique_ptr<RoutedSlots> make_filler(const std::vector<std::string>& names, const Backbone& backbone,
                                         const RouterOptions& router);

// Puts the expert's trained gates into a GatedLora.
void set_gates(GatedLora& gated, const std::string& expert);

}  // namespace skein::agreement
