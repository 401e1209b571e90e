// A bank and a router in the slots of a backbone.
#pragma once

#include <memory>
#include <vector>

#include "skein/experts/bank.h"
#include "skein/experts/routing_record.h"
#include "skein/nn/forward_state.h"
#include "skein/nn/slot.h"
#include "skein/route/router.h"

namespace skein {

// What a caller says of one sequence: added to the scores of the experts at every slot, -inf for those it must not
// take. (E), in expert order.
struct RoutingHint : SequenceHint {
  explicit RoutingHint(std::vector<float> bias) : bias(std::move(bias)) {}
  std::vector<float> bias;
};

class RoutedSlots : public SlotFiller {
 public:
  RoutedSlots(std::shared_ptr<const ExpertBank> bank, std::shared_ptr<const Router> router);
  // If state.memory is a RoutingRecord, what was chosen is appended to it.
  std::vector<at::Tensor> forward(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const override;
  bool splits() const override { return true; }
  bool reads_whole_prompts() const override { return router_->use().scope == RouterUse::Scope::kSequence; }
  at::Tensor product_input(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const override;
  void add_experts(const LinearGroup& group, const at::Tensor& x, std::vector<at::Tensor>& outputs,
                   ForwardState& state) const override;
  const ExpertBank& bank() const { return *bank_; }

 private:
  bool scales_input(int slot_idx) const;
  void attached_parts(const LinearGroup& group, std::vector<int>& slot_idxs, std::vector<std::size_t>& places) const;
  // Few rows, no gradient, LoRAs alone: the routers' work can go on beside the base's product.
  bool fits_beside(const LinearGroup& group, const at::Tensor& x) const;
  std::vector<at::Tensor> forward_beside(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const;

  std::shared_ptr<const ExpertBank> bank_;
  std::shared_ptr<const Router> router_;
};

// Share of the routing weight per expert over all slots and rows of a record: (E) f64, sums to 1 (all zero if empty).
at::Tensor expert_shares(const RoutingRecord& record);
// The same per slot: (slots, E).
at::Tensor expert_shares_by_slot(const RoutingRecord& record);

}  // namespace skein
