// Many LoRA experts of one base, side by side: per slot one stacked A and one stacked B. Ranks may differ, and an expert
// may lack a slot (it then adds nothing there).
//
// Owns its tensors. Thread-safety: const after building.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/experts/mixture.h"
#include "skein/nn/compute.h"
#include "skein/spec/expert_folder.h"

namespace skein {

// One slot of the bank: expert e owns rows [row_begin[e], row_begin[e + 1]), none if it lacks the slot.
struct BankSlot {
  at::Tensor a;                          // (sum of R, D_in), compute dtype
  at::Tensor b;                          // (sum of R, D_out), compute dtype: row r is column r of its expert's B, times scale
  std::vector<std::int64_t> row_begin;   // E + 1
  bool empty() const { return row_begin.empty() || row_begin.back() == 0; }
  bool has(int expert_idx) const { return row_begin[expert_idx + 1] > row_begin[expert_idx]; }
};

class ExpertBank {
 public:
  // adapters in expert order; names for messages and traces, same order. Scales are folded into b in f32.
  ExpertBank(const std::vector<LoraAdapter>& adapters, std::vector<std::string> names, const std::vector<SlotName>& slots,
             const ComputeOptions& compute);
  int num_experts() const { return static_cast<int>(names_.size()); }
  const std::vector<std::string>& names() const { return names_; }
  const BankSlot& slot(int slot_idx) const { return slots_[slot_idx]; }
  const std::vector<SlotName>& slot_names() const { return slot_names_; }
  std::int64_t num_parameters() const;

 private:
  std::vector<std::string> names_;
  std::vector<SlotName> slot_names_;
  std::vector<BankSlot> slots_;
};

}  // namespace skein
