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

// How a router's choice is put to use: whose input decides, for whom, and what is mixed.
struct RouterUse {
  // kToken: every token by its own input. kSequence: every sequence by the mean input of its prompt (SMEAR's masked
  // mean, arXiv 2306.03745); what is generated, and every answer that is scored, keeps the prompt's choice. Of an
  // encoder-decoder: by the mean over the source, in the decoder by the start token.
  enum class Scope { kToken, kSequence } scope = Scope::kToken;
  // Modules that take one choice: each its own; those that read one input (q, k and v); a layer's; the model's. The
  // first of them that runs decides for the others.
  enum class Sharing { kModule, kInput, kLayer, kModel } sharing = Sharing::kModule;
  // kOutputs: sum of w_e B_e A_e x. kFactors: (sum of w_e B_e)(sum of w_e A_e) x, soft merging; ranks must agree.
  enum class Mixing { kOutputs, kFactors } mixing = Mixing::kOutputs;
  bool operator==(const RouterUse&) const = default;
};

// Where methods differ, the switches (docs/design/routers.md).
struct RouterOptions {
  std::string kind = "phatgoose";    // a row of router_kinds()
  int top_k = 2;                     // 1..E
  double top_p = 1;                  // of the k, the fewest with this share of the probability (at least one)
  double temperature = 1;            // scores are divided by it
  bool softmax_over_chosen = false;  // false: over all E, then divided by the chosen sum + 1e-6 (phatgoose's code);
                                     // true: over the k chosen scores (its paper; PEFT's and mttl's Arrow)
  // Of the gate vectors of routers that normalise; the token is layer-normalised in every case (phatgoose's code).
  enum class GateNorm { kLayerNorm, kL2, kNone } gate_norm = GateNorm::kLayerNorm;
  bool bf16_scores = false;          // the score product in bf16, as under autocast; ties get likely
  std::vector<std::string> only;     // experts allowed, by name; empty: all
  std::vector<std::string> without;  // experts switched off
  std::string expert;                // kind single: its name
  std::uint64_t seed = 0;            // of uniform, of shuffled and random gates
  RouterUse use;
  // Controls: the gates of the experts exchanged at random within each slot, or random vectors of their lengths.
  enum class Gates { kOwn, kShuffled, kRandom } gates = Gates::kOwn;
  double description_weight = 1;     // kind task-description: of the similarity of descriptions, beside the gates
  std::vector<std::string> general;  // GenKnowSub (arXiv 2505.10939): subtracted from the others, and not chosen
};

// What there is to route by.
struct RouterKind {
  const char* name;
  const char* help;
  enum class Score {
    kNone,        // no gates
    kNormalised,  // LN(x) . normalised gate / sqrt(D): one direction per expert
    kMagnitude,   // |G_e x|: one direction or several, as they are
  } score;
  const char* gates;  // which file of an expert (gates/KIND.safetensors) it reads; null: none
  bool from_weights;  // such gates can be made of the adapter alone (route/spectral_gates.h)
  bool needs_hints;   // reads what the caller says of each sequence (RoutingHint)
};
const std::vector<RouterKind>& router_kinds();
// Throws Failure (kUsage) on a name that is not there.
const RouterKind& router_kind(const std::string& name);
// The options as its paper has them: softmax, scope and mixing differ.
RouterOptions default_router(const std::string& kind);

// Thread-safety: const. No gradient flows through a choice.
class Router {
 public:
  explicit Router(RouterUse use) : use_(use) {}
  virtual ~Router() = default;
  const RouterUse& use() const { return use_; }
  // x (N, D_in) -> k experts per row, best first; ties go to the lower expert_idx. Scores in f32. Experts that are
  // switched off or lack the slot are left out of the softmax. Where fewer than k remain, the rest of the row has
  // weight 0. A row's choice does not depend on the other rows; a row with a NaN chooses nothing. Slots that read the
  // same x are routed together: its statistics and its f32 copy are made once.
  // row_bias (N, E) f32: added to the scores (-inf: not this expert); undefined: nothing.
  virtual std::vector<Mixture> route_group(const std::vector<int>& slot_idxs, const at::Tensor& x,
                                           const at::Tensor& row_bias) const = 0;
  Mixture route(int slot_idx, const at::Tensor& x) const { return route_group({slot_idx}, x, {}).front(); }

 private:
  RouterUse use_;
};

// Experts of the bank that are not switched off: (E). Throws Failure (kUsage) on unknown names and if none is left.
std::vector<bool> allowed_experts(const RouterOptions& options, const ExpertBank& bank);

// gates: one GateFile per expert of the bank, in order (empty for kinds that need none). Throws Failure with kUsage for
// unknown kinds and names, k out of range, a missing gate (naming the expert).
std::shared_ptr<const Router> make_router(const RouterOptions& options, const ExpertBank& bank,
                                          const std::vector<GateFile>& gates, const ComputeOptions& compute);

}  // namespace skein
