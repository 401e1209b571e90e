// Whose input decides, and for which modules: what lies between a router, which knows rows, and the slots of a pass.
#pragma once

#include <vector>

#include "skein/nn/forward_state.h"
#include "skein/route/router.h"

namespace skein {

// The mixtures of slots that read x (N, D_in), as the router's use() says: one per slot, a row per row of x. Hints and
// sequences come from state.rows; a choice kept for later slots or calls goes to state.own_memory and to the
// sequences' caches.
std::vector<Mixture> choose_mixtures(const Router& router, const ExpertBank& bank, const std::vector<int>& slot_idxs,
                                     const at::Tensor& x, ForwardState& state);

}  // namespace skein
