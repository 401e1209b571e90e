// Experts and routers that are trained together, in the slots of a backbone: MoV and MoLoRA (arXiv 2309.05444). With
// one expert and no router, MoV is (IA)3 (arXiv 2205.05638).
//
//   MoV      k' = k * sum_e p_e l_e, the same for v; h = (act(W_1 x) * sum_e p_e l_e) (* W_3 x), y = W_2 h
//   MoLoRA   y = W x + (alpha/R) sum_e p_e B_e A_e x, or with A = sum_e p_e A_e and B = sum_e p_e B_e
//   p = softmax(W_g u), u by the configuration's router_input (spec/mixture_folder.h)
//
// Experts and routers are f32 leaves; x and W are in the compute dtype. Thread-safety: const while it computes.
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/experts/mixture_router.h"
#include "skein/nn/compute.h"
#include "skein/nn/slot.h"
#include "skein/spec/expert_folder.h"
#include "skein/spec/mixture_folder.h"

namespace skein {

// First values: vectors are ones, B is 0, so that every expert is the identity and the routers' gradient is zero.
struct MixtureInit {
  double a_std = 0.02;       // A ~ N(0, a_std^2); released code
  double router_std = 0.02;  // W_g ~ N(0, router_std^2); released code
  std::uint64_t seed = 0;
};
// Throws Failure (kUsage) on a configuration that the base does not fit.
MixtureFile new_mixture(const MixtureConfig& config, const BackboneConfig& base, const MixtureInit& init);
// A MoLoRA whose experts are those adapters (all LoRA) and whose routers are new. Smaller ranks are padded with zeros
// and each expert's own scale is folded into B, so that the mixture's is 1; an expert adds nothing where it lacks a
// linear.
MixtureFile mixture_of(const std::vector<LoraAdapter>& adapters, const std::vector<std::string>& names,
                       const MixtureConfig& config, const BackboneConfig& base, const MixtureInit& init);

class MixtureSlots : public SlotFiller {
 public:
  enum class Trains { kNothing, kRouters, kExperts, kAll };
  MixtureSlots(const MixtureFile& mixture, const BackboneConfig& base, const ComputeOptions& compute, Trains trains);

  // If state.memory is a RouterRecord or a RoutingRecord, what the routers did is added to it.
  std::vector<at::Tensor> forward(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const override;
  RowFacts wanted_facts() const override;
  // Load balancing and z-loss of the step to come. num_routers is set here.
  void set_losses(const RouterLossWeights& weights);

  const MixtureConfig& config() const { return config_; }
  int num_routers() const { return static_cast<int>(modules_.size()); }
  const SlotName& slot_of_router(int router_idx) const { return slots_[modules_[router_idx].slot_idx]; }
  std::vector<at::Tensor> parameters() const;        // those that are trained, in slot order
  std::vector<std::string> parameter_names() const;  // "model.layers.0.self_attn.k_proj.experts.scaling", same order
  MixtureFile to_file() const;                       // fingerprint and hint are left to the caller
  // Mean over the linears of the cosine of each pair of experts, (E, E): of l_e - 1 or of B_e A_e. 0 where one is zero.
  at::Tensor expert_cosines() const;

 private:
  struct Module {
    int slot_idx = 0;
    at::Tensor scaling;      // (E, d)
    at::Tensor a, b;         // (E, R, D_in), (E, D_out, R)
    at::Tensor router;       // (E, width)
    bool in_source = false;  // its rows are the source's: the encoder's linears, k and v of the cross-attention
  };
  std::vector<at::Tensor> scale_group(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const;
  at::Tensor scaled_output(int module_idx, const at::Tensor& x, const at::Tensor& y, ForwardState& state) const;
  bool runs_as_one_node() const;
  std::vector<at::Tensor> mix_as_one(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const;
  std::vector<at::Tensor> mix_group(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const;
  at::Tensor logits_of(int module_idx, const at::Tensor& read, const ForwardState& state) const;
  // logits (N * heads, E) -> weights (N, heads, E); tells losses and records.
  at::Tensor weights_of(int module_idx, const at::Tensor& logits, std::int64_t heads, ForwardState& state) const;
  // weights (N, heads, E): into state.memory.
  void record(int module_idx, const at::Tensor& logits, const at::Tensor& weights, const ForwardState& state) const;
  at::Tensor route(int module_idx, const at::Tensor& read, std::int64_t heads, ForwardState& state) const;

  MixtureConfig config_;
  BackboneConfig base_;
  std::vector<SlotName> slots_;
  Trains trains_;
  RoutingRule rule_;
  RouterLossWeights losses_;
  std::vector<Module> modules_;
  std::vector<int> module_of_slot_;        // -1: none
  std::vector<int> feed_forward_of_slot_;  // MoV: of a feed-forward's first linear, the module of its last; -1: another
};

}  // namespace skein
