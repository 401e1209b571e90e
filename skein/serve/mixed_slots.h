// Several fillers in the slots of one pass, each for its own sequences' rows: the frozen weights multiply all rows at
// once, then every filler adds what it has to its rows.
#pragma once

#include <map>
#include <memory>

#include "skein/nn/forward_state.h"
#include "skein/nn/slot.h"

namespace skein {

// Segments name their filler (Segment::filler; null: the plain base). Those of one filler stand side by side; if not,
// each stretch is a part of its own. Holds for one pass (of encoder and decoder): its ForwardState keeps the parts.
class MixedSlots : public SlotFiller {
 public:
  // memories: what a filler finds as its state's memory; may lack some.
  explicit MixedSlots(std::map<const SlotFiller*, std::shared_ptr<SlotMemory>> memories)
      : memories_(std::move(memories)) {}
  std::vector<at::Tensor> forward(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const override;

 private:
  std::map<const SlotFiller*, std::shared_ptr<SlotMemory>> memories_;
};

}  // namespace skein
