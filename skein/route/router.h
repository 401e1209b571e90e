// Which experts a token takes at a slot.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/experts/bank.h"
#include "skein/experts/mixture.h"

namespace skein {

// Where methods differ, the switches (docs: routing, "variants").
struct RouterOptions {
  // phatgoose: the k best scores of the gates (arXiv 2402.05859, section 3.3).
  // uniform: k experts drawn at random for each row and slot, weight 1/k each: the control without gates. The draw
  //   depends on seed, slot and the row's own numbers only.
  // single: `expert` with weight exactly 1.   merged: every expert with weight 1/E (the mean of the products B_e A_e).
  std::string kind = "phatgoose";
  int top_k = 2;                     // 1..E; phatgoose and uniform
  double temperature = 1;            // scores are divided by it
  bool softmax_over_chosen = false;  // false: over all E, then divided by the chosen sum + 1e-6 (released code);
                                     // true: over the k chosen scores (paper)
  // Of the gate vectors; the token is layer-normalised in every case (released code).
  enum class GateNorm { kLayerNorm, kL2, kNone } gate_norm = GateNorm::kLayerNorm;
  bool bf16_scores = false;          // the score product in bf16, as the released code under autocast; ties get likely
  std::vector<std::string> only;     // experts allowed, by name; empty: all
  std::vector<std::string> without;  // experts switched off
  std::string expert;                // kind single: its name
  std::uint64_t seed = 0;            // kind uniform
};

// Thread-safety: const. No gradient flows through a choice.
class Router {
 public:
  virtual ~Router() = default;
  // x (N, D_in) in the compute dtype -> k experts per row, best first; ties go to the lower expert_idx. Scores in f32.
  // Experts that are switched off or lack the slot are left out of the softmax. Where fewer than k remain, the rest of
  // the row has weight 0. A row's choice does not depend on the other rows; a row with a NaN chooses nothing.
  Mixture route(int slot_idx, const at::Tensor& x) const { return route_group({slot_idx}, x).front(); }
  // The same for slots that read the same x: its statistics and its f32 copy are made once.
  virtual std::vector<Mixture> route_group(const std::vector<int>& slot_idxs, const at::Tensor& x) const = 0;
};

// gates: one GateFile per expert of the bank, in order (empty for kinds that need none). Throws Failure with kUsage for
// unknown kinds and names, k out of range, a missing gate (naming the expert).
std::shared_ptr<const Router> make_router(const RouterOptions& options, const ExpertBank& bank,
                                          const std::vector<GateFile>& gates, const ComputeOptions& compute);

}  // namespace skein
