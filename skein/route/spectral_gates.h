// Gates made of an adapter's weights alone: no data, no training, so that any LoRA can join a pool.
#pragma once

#include <cstdint>
#include <vector>

#include "skein/spec/expert_folder.h"

namespace skein {

struct ArrowOptions {
  // Exact: an SVD of the r x r core. Else PEFT's: steps of the power iteration with A^T (B^T B) A from one random
  // start, in f32; close to the exact direction only where the first singular value stands out.
  bool by_power_iteration = false;
  std::int64_t steps = 15;
  std::uint64_t seed = 0;
};
// Arrow (arXiv 2405.11157): the first right singular vector of B A, of length 1 and arbitrary sign. Kind "arrow".
GateFile arrow_gate(const LoraAdapter& adapter, const std::vector<SlotName>& slots, const ArrowOptions& options = {});

struct SpectralOptions {
  std::int64_t directions = 0;  // kept of each module, at most its rank; 0: all
  double power = 1;             // of the singular values on the directions: 1 SpectR, 0 SMILE (arXiv 2408.10174)
};
// SpectR (arXiv 2504.03454): rows sigma_i^p v_i of s B A, so that the score |G x| is the size of the contribution
// s B A x (all directions, p = 1). Kind "spectr".
GateFile spectr_gate(const LoraAdapter& adapter, const std::vector<SlotName>& slots,
                     const SpectralOptions& options = {});

// The gate of a router whose kind says from_weights, with default options.
GateFile gate_from_weights(const std::string& kind, const LoraAdapter& adapter, const std::vector<SlotName>& slots);

}  // namespace skein
