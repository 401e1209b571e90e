// One LoRA expert whose A and B are trained, filling every slot it targets; and the same expert frozen behind a gate
// that is trained (PHATGOOSE, arXiv 2402.05859, sections 3.1 and 3.2 of the paper).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/nn/compute.h"
#include "skein/nn/forward_state.h"
#include "skein/nn/slot.h"
#include "skein/spec/expert_folder.h"

namespace skein {

struct LoraInit {
  std::int64_t rank = 16;
  double alpha = 1;                       // scale alpha/rank: PHATGOOSE's 1/R
  double a_std = 0.01;                    // A ~ N(0, a_std^2), B = 0; phatgoose. 0: PEFT's kaiming-uniform(a = sqrt 5)
  std::vector<std::string> target_kinds;  // "q_proj", ...; empty: every slot
  std::uint64_t seed = 0;
};

// y = W x + (alpha/R) B A x with fp32 A, B; x and W in the compute dtype. The constructor throws Failure (kUsage) on a
// target kind that the base lacks.
class TrainableLora : public SlotFiller {
 public:
  struct Module {
    int slot_idx;
    std::int64_t rank;
    double scale;
    at::Tensor a, b;
  };  // a (R, D_in), b (D_out, R): f32, requires_grad

  TrainableLora(const std::vector<SlotName>& slots, const LoraInit& init, const c10::Device& device);
  // Goes on from an adapter's weights; ranks and scales are its own.
  TrainableLora(const std::vector<SlotName>& slots, const LoraAdapter& start, const c10::Device& device);
  std::vector<at::Tensor> forward(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const override;

  std::vector<at::Tensor> parameters() const;        // a, b of each module in slot order
  std::vector<std::string> parameter_names() const;  // "model.layers.0.self_attn.q_proj.lora_A", same order
  LoraAdapter to_adapter(const std::string& base_hint, bool encoder_decoder) const;

 private:
  std::vector<SlotName> slots_;
  AdapterConfig config_;  // what to_adapter() says of it
  std::vector<Module> modules_;
  std::vector<int> module_of_slot_;  // -1: none
};

// If state.memory is one, GatedLora appends the gates of every call to it.
class GateRecord : public SlotMemory {
 public:
  explicit GateRecord(int num_slots) : gates(num_slots) {}
  std::vector<std::vector<at::Tensor>> gates;  // [slot_idx][call] (N) f32
};

// y = W x + sigmoid(v . x) s B A x: everything frozen but v (f32, zero at first, so the first gate is exactly 0.5). An
// (IA)3 expert's share is what its vector changes: W x * (1 + sigmoid(v . x) (l - 1)), or with x so scaled in W x.
class GatedLora : public SlotFiller {
 public:
  GatedLora(const LoraAdapter& expert, const std::vector<SlotName>& slots, const ComputeOptions& compute);
  std::vector<at::Tensor> forward(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const override;

  std::vector<at::Tensor> parameters() const;        // v (D_in) of each adapted slot
  std::vector<std::string> parameter_names() const;  // "<module>.gate"
  GateFile to_gate(std::int64_t steps, const std::string& base_fingerprint) const;

 private:
  struct Module {
    int slot_idx;
    at::Tensor a, b, v;
    at::Tensor shift;  // (IA)3: l - 1, f32, (D_in) or (D_out); undefined: a LoRA
    bool scales_input = false;
  };  // a (R, D_in), b (D_out, R) scaled, compute dtype; v (D_in) f32
  void add(Module module, const ComputeOptions& compute);
  std::vector<at::Tensor> scale_group(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const;
  std::vector<SlotName> slots_;
  std::vector<Module> modules_;
  std::vector<int> module_of_slot_;
};

}  // namespace skein
