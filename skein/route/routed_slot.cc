#include "skein/route/routed_slot.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "skein/base/check.h"
#include "skein/experts/apply.h"
#include "skein/route/choice_scope.h"

namespace skein {

RoutedSlots::RoutedSlots(std::shared_ptr<const ExpertBank> bank, std::shared_ptr<const Router> router)
    : bank_(std::move(bank)), router_(std::move(router)) {}

namespace {

// x (1 + sum_e w_e (l_e - 1)) with the mixture's (IA)3 experts; x (N, width), rounded once.
at::Tensor with_vectors(const at::Tensor& x, const at::Tensor& shifts, const Mixture& mixture) {
  const at::Tensor weights = at::zeros({x.size(0), shifts.size(0)}, mixture.weights.options());  // (N, E)
  weights.scatter_add_(1, mixture.ids.to(at::kLong), mixture.weights);
  return (x.to(at::kFloat) * (1 + at::mm(weights, shifts))).to(x.scalar_type());
}

}  // namespace

bool RoutedSlots::scales_input(int slot_idx) const {
  return slot_idx >= 0 && bank_->slot(slot_idx).shifts().defined() && bank_->slot(slot_idx).scales_input();
}

std::vector<at::Tensor> RoutedSlots::forward(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const {
  if (fits_beside(group, x)) return forward_beside(group, x, state);
  std::vector<at::Tensor> outputs = apply_frozen(group, product_input(group, x, state));
  add_experts(group, x, outputs, state);
  return outputs;
}

bool RoutedSlots::fits_beside(const LinearGroup& group, const at::Tensor& x) const {
  constexpr std::int64_t kFewRows = 32;  // more, and every thread has rows of its own to route
  const auto has_vectors = [&](const FrozenLinear& part) {
    return part.slot_idx >= 0 && bank_->slot(part.slot_idx).shifts().defined();
  };
  return x.is_cpu() && x.size(0) > 0 && x.size(0) <= kFewRows && !at::GradMode::is_enabled() &&
         router_->use().mixing == RouterUse::Mixing::kOutputs &&
         std::none_of(group.parts.begin(), group.parts.end(), has_vectors);
}

// The choice and the first half of the sparse product need x alone: decoding, one thread sees to them while the others
// begin to stream the base's weights.
std::vector<at::Tensor> RoutedSlots::forward_beside(const LinearGroup& group, const at::Tensor& x,
                                                    ForwardState& state) const {
  static thread_local MixtureProduct product;
  std::vector<int> slot_idxs;
  std::vector<std::size_t> places;
  attached_parts(group, slot_idxs, places);
  if (slot_idxs.empty()) return apply_frozen(group, x);
  std::vector<Mixture> mixtures;
  std::vector<at::Tensor> outputs = apply_frozen(group, x, [&] {
    mixtures = choose_mixtures(*router_, *bank_, slot_idxs, x, state);
    std::vector<MixedPart> parts;
    for (std::size_t i = 0; i < slot_idxs.size(); ++i) parts.push_back({&bank_->slot(slot_idxs[i]), mixtures[i], {}});
    product.shrink(std::move(parts), x);
  });
  std::vector<at::Tensor> attached;
  for (const std::size_t place : places) attached.push_back(outputs[place]);
  product.expand(attached);
  if (auto* record = dynamic_cast<RoutingRecord*>(state.memory.get())) {
    for (std::size_t i = 0; i < slot_idxs.size(); ++i) record->mixtures[slot_idxs[i]].push_back(mixtures[i]);
  }
  return outputs;
}

// Vectors on an input come first, on the base's own product; LoRAs add to it, from the unscaled input.
at::Tensor RoutedSlots::product_input(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const {
  const int slot_idx = group.parts.front().slot_idx;
  if (!scales_input(slot_idx)) return x;
  SKEIN_CHECK(group.parts.size() == 1);
  return with_vectors(x, bank_->slot(slot_idx).shifts(), choose_mixtures(*router_, *bank_, {slot_idx}, x, state)[0]);
}

// slot_idxs: of the parts where any expert attaches; places: of those among the parts.
void RoutedSlots::attached_parts(const LinearGroup& group, std::vector<int>& slot_idxs,
                                 std::vector<std::size_t>& places) const {
  for (std::size_t i = 0; i < group.parts.size(); ++i) {
    const int s = group.parts[i].slot_idx;
    if (s < 0 || !bank_->slot(s).attaches_any()) continue;
    slot_idxs.push_back(s);
    places.push_back(i);
  }
}

void RoutedSlots::add_experts(const LinearGroup& group, const at::Tensor& x, std::vector<at::Tensor>& outputs,
                              ForwardState& state) const {
  std::vector<int> slot_idxs;
  std::vector<std::size_t> places;
  attached_parts(group, slot_idxs, places);
  if (slot_idxs.empty()) return;
  const std::vector<Mixture> mixtures = choose_mixtures(*router_, *bank_, slot_idxs, x, state);
  const bool with_gradient = at::GradMode::is_enabled() && x.requires_grad();
  auto* record = dynamic_cast<RoutingRecord*>(state.memory.get());
  std::vector<MixedPart> sparse;
  for (std::size_t i = 0; i < places.size(); ++i) {
    const BankSlot& slot = bank_->slot(slot_idxs[i]);
    at::Tensor& y = outputs[places[i]];
    if (slot.shifts().defined() && !slot.scales_input()) y = with_vectors(y, slot.shifts(), mixtures[i]);
    if (router_->use().mixing == RouterUse::Mixing::kFactors) {
      y = with_mixed_factors(slot, mixtures[i], x, y);
    } else if (with_gradient) {
      y = with_mixture_dense(slot, mixtures[i], x, y);
    } else {
      sparse.push_back({&slot, mixtures[i], y});
    }
    if (record) record->mixtures[slot_idxs[i]].push_back(mixtures[i]);
  }
  if (!sparse.empty()) apply_mixtures(sparse, x);
}

at::Tensor expert_shares_by_slot(const RoutingRecord& record) {
  const auto num_slots = static_cast<std::int64_t>(record.mixtures.size());
  const at::Tensor totals = at::zeros({num_slots, record.num_experts}, at::kDouble);
  for (std::int64_t s = 0; s < num_slots; ++s) {
    for (const Mixture& mixture : record.mixtures[s]) {
      totals[s].scatter_add_(0, mixture.ids.to(at::kCPU, at::kLong).flatten(),
                             mixture.weights.to(at::kCPU, at::kDouble).flatten());
    }
  }
  const at::Tensor sums = totals.sum(1, /*keepdim=*/true);
  return at::where(sums > 0, totals / sums, at::zeros({}, at::kDouble));
}

at::Tensor expert_shares(const RoutingRecord& record) {
  const at::Tensor totals = at::zeros({record.num_experts}, at::kDouble);
  for (const auto& calls : record.mixtures) {
    for (const Mixture& mixture : calls) {
      totals.scatter_add_(0, mixture.ids.to(at::kCPU, at::kLong).flatten(),
                          mixture.weights.to(at::kCPU, at::kDouble).flatten());
    }
  }
  const double sum = totals.sum().item<double>();
  return sum > 0 ? totals / sum : totals;
}

}  // namespace skein
