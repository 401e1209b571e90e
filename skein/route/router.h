// Which experts a token takes at a slot.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/experts/bank.h"
#include "skein/experts/mixture.h"

namespace skein {

// Where methods differ, the switches (docs: routing, "variants").
struct RouterOptions {
  std::string kind = "phatgoose";     // phatgoose | uniform | single | merged
  int top_k = 2;                      // 1..E
  double temperature = 1;             // scores are divided by it
  bool softmax_over_chosen = false;   // false: over all E, then divided by the chosen sum + 1e-6 (released code);
                                      // true: over the k chosen scores (paper)
  enum class GateNorm { kLayerNorm, kL2, kNone } gate_norm = GateNorm::kLayerNorm;
  std::vector<std::string> only;      // experts allowed, by name; empty: all
  std::vector<std::string> without;   // experts switched off
  std::string expert;                 // kind single: its name
};

class Router {
 public:
  virtual ~Router() = default;
  // x (N, D_in) in the compute dtype -> k experts per row, best first; ties go to the lower expert_idx. Scores in f32.
  // An expert that lacks the slot is not chosen while others can be.
  virtual Mixture route(int slot_idx, const at::Tensor& x) const = 0;
};

// gates: one GateFile per expert of the bank, in order (empty for kinds that need none). Throws Failure with kUsage for
// unknown kinds and names, k out of range, a missing gate (naming the expert).
std::shared_ptr<const Router> make_router(const RouterOptions& options, const ExpertBank& bank,
                                          const std::vector<GateFile>& gates, const ComputeOptions& compute);

}  // namespace skein
