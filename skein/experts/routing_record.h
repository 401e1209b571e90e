// What a pass chose, for traces and statistics.
#pragma once

#include <vector>

#include "skein/experts/mixture.h"
#include "skein/nn/forward_state.h"

namespace skein {

// Per slot the mixtures of every call, in order. Rows are the tokens of the packed batches.
class RoutingRecord : public SlotMemory {
 public:
  RoutingRecord(int num_slots, int num_experts) : mixtures(num_slots), num_experts(num_experts) {}
  std::vector<std::vector<Mixture>> mixtures;  // [slot_idx][call]
  int num_experts;
};

}  // namespace skein
