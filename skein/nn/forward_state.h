// All that one forward pass may change or remember: the filler of the slots and its memory. (Positions and caches
// travel with the PackedBatch.)
#pragma once

#include <memory>
#include <vector>

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

// The sequences of one stream of rows, for fillers that want to know (SlotFiller::wanted_facts).
struct SequenceRows {
  at::Tensor sequence_of;  // (N) int64
  at::Tensor
      sentence;  // (sequences, D): mean embedding of the input's tokens, in the compute dtype; undefined: not asked
  std::int64_t num_sequences = 0;
};

struct Segment;

struct ForwardState {
  const SlotFiller* filler = nullptr;  // borrowed for the call; null: the plain base
  std::shared_ptr<SlotMemory> memory;  // made and read by the filler or its owner; may be null
  SequenceRows rows;                   // of the stream at hand
  SequenceRows source_rows;            // encoder-decoders, in the decoder: of the encoder's rows, which k and v of the
                                       // cross-attention read
  at::Tensor carried;                  // from one slot to a later one of the same block; the filler's own
  // The sequences whose rows the slots read, set by the backbone, one object per pass and stream. Null: rows of one
  // sequence.
  std::shared_ptr<const std::vector<Segment>> segments = nullptr;
  std::shared_ptr<SlotMemory> own_memory = nullptr;  // of the filler alone: what it keeps from slot to slot
};

}  // namespace skein
