// All that one forward pass may change or remember: the filler of the slots, the sequences its rows belong to, and its
// memory. (Positions and caches travel with the PackedBatch.)
#pragma once

#include <memory>

#include "skein/nn/slot.h"

namespace skein {

// Opaque base of what a filler remembers between slots and calls: chosen mixtures, statistics, a trace.
class SlotMemory {
 public:
  virtual ~SlotMemory() = default;
};

// Opaque base of what a caller tells the filler about one sequence: which experts it should prefer.
class SequenceHint {
 public:
  virtual ~SequenceHint() = default;
};

struct SequenceRows;  // nn/packed_batch.h

struct ForwardState {
  const SlotFiller* filler = nullptr;  // borrowed for the call; null: the plain base
  std::shared_ptr<SlotMemory> memory;  // made and read by the filler or its owner; may be null
  // The sequences whose rows the slots read, set by the backbone: one object per pass and stream. The k and v of a
  // cross-attention read the encoder's. Null: rows of one sequence.
  std::shared_ptr<const SequenceRows> rows = nullptr;
  at::Tensor carried;                                // from one slot to a later one of the same block; the filler's own
  std::shared_ptr<SlotMemory> own_memory = nullptr;  // of the filler alone: what it keeps from slot to slot
};

}  // namespace skein
