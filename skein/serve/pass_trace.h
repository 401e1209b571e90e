// Who was chosen in one pass, cut into the traces of its sequences.
#pragma once

#include <cstdint>
#include <vector>

#include "skein/experts/routing_record.h"
#include "skein/serve/request.h"
#include "skein/spec/tensor_names.h"

namespace skein {

// record: of one pass (and of the pass over the sources that preceded it), one call per slot at most.
class PassTrace {
 public:
  PassTrace(const RoutingRecord& record, const std::vector<SlotName>& slots);
  // Of one row of the stream (in_source: of the encoder's rows).
  TokenTrace of_row(std::int64_t row, bool in_source) const;

 private:
  struct Slot {
    std::int32_t slot_idx = 0;
    bool reads_source = false;
    at::Tensor ids, weights;  // (N, k) on the CPU
  };
  std::vector<Slot> slots_;
};

}  // namespace skein
