#include "skein/nn/slot.h"

#include "skein/nn/forward_state.h"

namespace skein {

std::vector<at::Tensor> apply_slots(const LinearGroup& group, const at::Tensor& x, ForwardState& state) {
  return state.filler == nullptr ? apply_frozen(group, x) : state.filler->forward(group, x, state);
}

}  // namespace skein
