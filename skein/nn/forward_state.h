// All that one forward pass may change or remember: the filler of the slots and its memory. (Positions and caches
// travel with the PackedBatch.)
#pragma once

#include <memory>

#include "skein/nn/slot.h"

namespace skein {

// Opaque base of what a filler remembers between slots and calls: chosen mixtures, statistics, a trace.
class SlotMemory {
 public:
  virtual ~SlotMemory() = default;
};

struct ForwardState {
  const SlotFiller* filler = nullptr;  // borrowed for the call; null: the plain base
  std::shared_ptr<SlotMemory> memory;  // made and read by the filler or its owner; may be null
};

}  // namespace skein
