// A PEFT adapter as an input of a merge: folded into its base while the base's tensors are read.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/merge/source.h"
#include "skein/merge/tensor_reader.h"
#include "skein/spec/expert_folder.h"

namespace skein::merge {

// An adapter with the modules its own file names; module i is slots[modules[i].slot_idx].
struct AdapterFile {
  std::string folder;
  LoraAdapter adapter;
  std::vector<SlotName> slots;
  std::vector<InputFile> files;
};

// Reads a PEFT LoRA folder without a base. Scales follow alpha, rank patterns, alpha patterns and rsLoRA. What would
// change outputs if ignored (DoRA, biases, modules_to_save, fan_in_fan_out, ...) is refused by name.
Result<AdapterFile> read_adapter_file(Env& env, const std::string& folder);

// True for a folder with adapter_config.json and without config.json.
bool is_adapter_folder(Env& env, const std::string& folder);

// The source with base->adapter_folder folded in. (IA)3: rows (and bias) or columns scaled. LoRA: W + s*B*A (LoRA,
// arXiv:2106.09685, eq. 3): read() forms the product for the elements asked for, in f32, sums over the rank in order,
// and gives kF32 whatever the base has, so that nothing is rounded before the merge. The adapter's matrices stay in
// memory. An adapted module that the base lacks, or has in another shape, is an error. base->adapter_folder must be
// set.
Result<std::unique_ptr<Source>> with_adapter(Env& env, std::unique_ptr<Source> base);

// inner + scale * b * a. inner (D_out, D_in), a (R, D_in), b (D_out, R).
std::shared_ptr<const TensorReader> make_lora_reader(std::shared_ptr<const TensorReader> inner, LoraTensors lora);

}  // namespace skein::merge
