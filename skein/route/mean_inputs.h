// The mean input of every module while some filler is at work: PHATGOOSE's baseline "average activation" (arXiv
// 2402.05859, section 4: the mean over an expert's examples stands in for its gate).
#pragma once

#include <vector>

#include "skein/nn/slot.h"
#include "skein/spec/expert_folder.h"

namespace skein {

// Passes everything on to the inner filler. What it gathers is mutable: one thread at a time.
class MeanInputs : public SlotFiller {
 public:
  MeanInputs(const SlotFiller& inner, int num_slots);
  std::vector<at::Tensor> forward(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const override;

  // The mean over the sequences seen of each sequence's own mean, so that every example counts alike. Slots that the
  // adapter has; kind "average-activation".
  GateFile to_gate(const LoraAdapter& adapter) const;

 private:
  const SlotFiller& inner_;
  mutable std::vector<at::Tensor> sums_;  // [slot_idx] (D_in) f64, undefined before the first row
  mutable std::vector<std::int64_t> counts_;
};

}  // namespace skein
