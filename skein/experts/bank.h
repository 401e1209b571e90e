// Many experts of one base, LoRA and (IA)3, side by side. Ranks may differ, and an expert may lack a slot (it then adds
// nothing there).
//
// Owns its tensors, one copy: packed for the CPU's kernels (in memory, or in pages of which only some are kept),
// stacked for libtorch's products elsewhere. Thread-safety: const after building.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/experts/expert_pages.h"
#include "skein/nn/compute.h"
#include "skein/spec/expert_folder.h"

namespace skein {

// All experts at one slot. Expert e owns the ranks [row_begin[e], row_begin[e + 1]), none if it lacks the slot.
class BankSlot {
 public:
  // modules[e]: of expert e, null if it lacks the slot. Scales are folded into B in f32, then rounded to the compute
  // type.
  BankSlot(const std::vector<const LoraTensors*>& modules, std::int64_t d_in, std::int64_t d_out,
           const ComputeOptions& compute);
  // Paged (CPU): add() every expert in order (null: it lacks the slot), map the pages, then locate().
  BankSlot(std::int64_t d_in, std::int64_t d_out, const ComputeOptions& compute, std::shared_ptr<ExpertPages> pages);
  void add(const LoraTensors* module);
  void locate();

  std::int64_t d_in() const { return d_in_; }
  std::int64_t d_out() const { return d_out_; }
  int num_experts() const { return static_cast<int>(row_begin_.size()) - 1; }
  bool empty() const { return row_begin_.back() == 0; }            // no LoRA at all
  bool has(int expert_idx) const { return rank(expert_idx) > 0; }  // a LoRA
  std::int64_t rank(int expert_idx) const { return row_begin_[expert_idx + 1] - row_begin_[expert_idx]; }
  std::int64_t max_rank() const { return max_rank_; }
  bool on_cpu() const { return on_cpu_; }
  bool finite() const { return finite_; }

  // (IA)3 experts. l_e - 1, (E, width) f32, zeros for experts without a vector here; undefined if none has one.
  void set_vectors(const std::vector<const Ia3Tensors*>& vectors, const ComputeOptions& compute);
  const at::Tensor& shifts() const { return shifts_; }
  bool scales_input() const { return scales_input_; }
  // A LoRA or a vector.
  bool attaches(int expert_idx) const {
    return has(expert_idx) || (!has_vector_.empty() && has_vector_[static_cast<std::size_t>(expert_idx)]);
  }
  bool attaches_any() const { return !empty() || shifts_.defined(); }

  // Plain copies for reference paths and tests: A (R, D_in) and B (D_out, R), scaled, in the compute type.
  at::Tensor expert_a(int expert_idx) const;
  at::Tensor expert_b(int expert_idx) const;

  // Every expert's ranks one above the other, for dense products: a (sum of R, D_in), b (sum of R, D_out), and the
  // expert of each row (sum of R) int64. On the CPU made anew by each call.
  struct Stacked {
    at::Tensor a, b, owner;
  };
  Stacked stacked() const;

  // CPU: expert e's packed A and B (layout: lora_kernels.h). T: float or uint16_t, after the compute type. Pages: use()
  // comes first. Every B lies at packed_b_base() + a number of elements.
  template <typename T>
  const T* packed_a(int expert_idx) const {
    return static_cast<const T*>(a_base_) + a_begin_[expert_idx];
  }
  template <typename T>
  const T* packed_b(int expert_idx) const {
    return static_cast<const T*>(b_base_) + b_begin_[expert_idx];
  }
  template <typename T>
  const T* packed_b_base() const {
    return static_cast<const T*>(b_base_);
  }
  void use(int expert_idx) const {
    if (pages_ != nullptr && pieces_[expert_idx] >= 0) pages_->use(pieces_[expert_idx]);
  }

 private:
  template <typename T>
  void pack(const std::vector<const LoraTensors*>& modules);
  template <typename T>
  void pack_into_pages(const LoraTensors& module);
  void count(const LoraTensors* module);
  void stack(const std::vector<const LoraTensors*>& modules, const ComputeOptions& compute);

  std::int64_t d_in_ = 0, d_out_ = 0, max_rank_ = 0;
  bool on_cpu_ = true;
  bool finite_ = true;                   // no NaN or Inf in any expert
  std::vector<std::int64_t> row_begin_;  // E + 1
  at::Tensor a_, b_, owner_;             // CPU: flat, packed, no owner; else as in Stacked
  const void* a_base_ = nullptr;         // CPU: where the elements counted by a_begin_ and b_begin_ lie
  const void* b_base_ = nullptr;
  std::vector<std::int64_t> a_begin_, b_begin_;
  c10::ScalarType dtype_ = c10::ScalarType::Float;
  std::shared_ptr<ExpertPages> pages_;
  std::vector<std::int64_t> pieces_;  // pages: of each expert, -1 if it lacks the slot
  at::Tensor shifts_;                 // (E, D_in or D_out)
  bool scales_input_ = false;
  std::vector<bool> has_vector_;
};

class ExpertBank {
 public:
  // adapters in expert order; names for messages and traces, same order. Throws Failure where a module's size does not
  // fit its slot.
  ExpertBank(const std::vector<LoraAdapter>& adapters, std::vector<std::string> names,
             const std::vector<SlotName>& slots, const ComputeOptions& compute);
  // The same with at most `memory` bytes of LoRAs kept (ExpertPages). read: expert by expert, in order, so that one is
  // in memory at a time. CPU only.
  ExpertBank(std::vector<std::string> names, const std::vector<SlotName>& slots, const ComputeOptions& compute,
             const std::function<LoraAdapter(int)>& read, std::uint64_t memory);
  int num_experts() const { return static_cast<int>(names_.size()); }
  const std::vector<std::string>& names() const { return names_; }
  const BankSlot& slot(int slot_idx) const { return slots_[slot_idx]; }
  const std::vector<SlotName>& slot_names() const { return slot_names_; }
  const ComputeOptions& compute() const { return compute_; }
  std::int64_t num_parameters() const { return num_parameters_; }
  const ExpertPages* pages() const { return pages_.get(); }  // null: all in memory

 private:
  void check(const LoraAdapter& adapter, const std::string& name);
  void add_vectors(const std::vector<LoraAdapter>& adapters);

  std::vector<std::string> names_;
  std::vector<SlotName> slot_names_;
  ComputeOptions compute_;
  std::shared_ptr<ExpertPages> pages_;
  std::vector<BankSlot> slots_;
  std::int64_t num_parameters_ = 0;
};

}  // namespace skein
