// An expert on disk: a PEFT adapter folder, its gates and its card. Format: docs/formats/expert.md.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/checkpoint.h"
#include "skein/io/env.h"
#include "skein/spec/lora_config.h"

namespace skein {

// The tensors of one adapted module, as row-major f32.
struct LoraTensors {
  int slot_idx = 0;
  std::int64_t rank = 0;
  double scale = 1;
  std::vector<float> a;  // (R, D_in)
  std::vector<float> b;  // (D_out, R)
};

// The (IA)3 vector of one module (arXiv 2205.05638): y = W (x * l) or y = (W x) * l, before norms and rotation.
struct Ia3Tensors {
  int slot_idx = 0;
  bool scales_input = false;   // feed-forward modules
  std::vector<float> scaling;  // (D_in) or (D_out)
};

struct LoraAdapter {
  std::string path;
  AdapterConfig config;
  std::vector<LoraTensors> modules;  // by slot_idx, ascending; finite values only
  std::vector<Ia3Tensors> vectors;   // the same; an adapter of kind kIa3 has these instead
};

// Reads a PEFT LoRA folder and checks every tensor against the base's slots: unknown modules, missing halves, other
// ranks or widths, NaN or Inf are errors that list the offending tensors; a pickle (.bin) is refused with the way out.
Result<LoraAdapter> read_lora_adapter(Env& env, const std::string& folder, const std::vector<SlotName>& slots);
// The same for a LoRA or an (IA)3 folder, whichever it is.
Result<LoraAdapter> read_adapter(Env& env, const std::string& folder, const std::vector<SlotName>& slots);
// Writes an (IA)3 as PEFT does.
Status write_ia3_adapter(Env& env, const std::string& folder, const LoraAdapter& adapter,
                         const std::vector<SlotName>& slots);
// Writes adapter_config.json and adapter_model.safetensors into an existing folder, as PEFT does.
Status write_lora_adapter(Env& env, const std::string& folder, const LoraAdapter& adapter,
                          const std::vector<SlotName>& slots);

// gates/KIND.safetensors: one direction (g = 1) or several per module.
struct GateTensors {
  int slot_idx = 0;
  std::int64_t num_directions = 1;  // g
  std::vector<float> directions;    // (g, D_in)
};
struct GateFile {
  std::string kind;        // "phatgoose", "arrow", ...
  std::int64_t steps = 0;  // training steps; 0 for gates that are not trained
  std::string base_fingerprint;
  std::vector<GateTensors> modules;  // by slot_idx, ascending
};
Result<GateFile> read_gate(Env& env, const std::string& expert_folder, const std::string& kind,
                           const std::vector<SlotName>& slots);
Status write_gate(Env& env, const std::string& expert_folder, const GateFile& gate, const std::vector<SlotName>& slots);
// Kinds for which the folder has a gate, sorted.
std::vector<std::string> gate_kinds(Env& env, const std::string& expert_folder);

// card.json: what was done, so that it can be done again. Free-form beyond base_fingerprint.
Result<Json> read_card(Env& env, const std::string& expert_folder);  // an absent card gives {}
Status write_card(Env& env, const std::string& expert_folder, const Json& card);

}  // namespace skein
