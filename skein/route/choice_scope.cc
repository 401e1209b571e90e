#include "skein/route/choice_scope.h"

#include <algorithm>
#include <map>

#include <ATen/ATen.h>

#include "skein/base/check.h"
#include "skein/nn/packed_batch.h"
#include "skein/route/routed_slot.h"

namespace skein {
namespace {

using Rows = std::shared_ptr<const SequenceRows>;

// What is kept from slot to slot of a pass. A pass is known by its sequences, which are held so that no other's can
// stand at their address.
struct PassMemory : SlotMemory {
  struct Pass {
    Rows rows;
    bool knows_bias = false;
    at::Tensor row_bias;              // (N, E), undefined without hints
    std::map<int, Mixture> by_layer;  // -1: the model's
  };
  std::vector<Pass> passes;

  Pass& of(const Rows& rows) {
    const auto found = std::find_if(passes.begin(), passes.end(), [&](const Pass& pass) { return pass.rows == rows; });
    if (found != passes.end()) return *found;
    std::erase_if(passes, [](const Pass& pass) { return pass.rows.use_count() == 1; });  // over
    return passes.emplace_back(Pass{rows, false, {}, {}});
  }
};

// The choice of a sequence's prompt, by slot: (k) each.
struct SequenceChoices : SlotMemory {
  std::map<int, Mixture> by_slot;
};

// Rows that stand before any answer.
std::int64_t prompt_rows(const Segment& segment) {
  if (segment.source >= 0) return 1;  // a decoder's start token
  std::int64_t rows = segment.length;
  for (const std::int64_t branch : segment.branches) rows -= branch;
  return rows;
}

// (N, E): the hint of each row's sequence; undefined if there is none.
at::Tensor bias_of_rows(const Rows& rows, std::int64_t num_rows, int num_experts, const at::Device& device) {
  if (rows == nullptr) return {};
  at::Tensor bias;
  for (const Segment& segment : rows->segments) {
    const auto* hint = dynamic_cast<const RoutingHint*>(segment.hint.get());
    if (hint == nullptr) continue;
    SKEIN_CHECK(static_cast<int>(hint->bias.size()) == num_experts);
    if (!bias.defined()) bias = at::zeros({num_rows, num_experts}, at::kFloat);
    bias.narrow(0, segment.begin, segment.length).copy_(at::tensor(hint->bias).unsqueeze(0));
  }
  return bias.defined() ? bias.to(device) : bias;
}

SequenceChoices* choices_of(const Segment& segment) {
  if (segment.cache == nullptr) return nullptr;
  auto* choices = dynamic_cast<SequenceChoices*>(segment.cache->slot_memory.get());
  if (choices != nullptr) return choices;
  auto made = std::make_shared<SequenceChoices>();
  segment.cache->slot_memory = made;
  return made.get();
}

// Scope kSequence: the mean input of each prompt decides for its sequence.
std::vector<Mixture> by_sequence(const Router& router, const std::vector<int>& slot_idxs, const at::Tensor& x,
                                 const at::Tensor& row_bias, const std::vector<Segment>& segments) {
  std::vector<at::Tensor> means, biases;
  std::vector<std::size_t> undecided;
  const auto is_held = [&](const Segment& segment) {
    const SequenceChoices* choices = choices_of(segment);
    return choices != nullptr && choices->by_slot.contains(slot_idxs.front());
  };
  for (std::size_t i = 0; i < segments.size(); ++i) {
    if (is_held(segments[i])) continue;
    undecided.push_back(i);
    means.push_back(x.narrow(0, segments[i].begin, prompt_rows(segments[i])).to(at::kFloat).mean(0));
    if (row_bias.defined()) biases.push_back(row_bias[segments[i].begin]);
  }
  std::vector<Mixture> decided;
  if (!undecided.empty()) {
    decided = router.route_group(slot_idxs, at::stack(means), biases.empty() ? at::Tensor() : at::stack(biases));
  }
  std::vector<Mixture> mixtures;
  for (std::size_t s = 0; s < slot_idxs.size(); ++s) {
    std::vector<at::Tensor> ids, weights;
    for (std::size_t i = 0, next = 0; i < segments.size(); ++i) {
      Mixture row;
      if (next < undecided.size() && undecided[next] == i) {
        const auto at = static_cast<std::int64_t>(next++);
        row = Mixture{decided[s].ids[at], decided[s].weights[at]};
        if (SequenceChoices* choices = choices_of(segments[i])) choices->by_slot[slot_idxs[s]] = row;
      } else {
        row = choices_of(segments[i])->by_slot.at(slot_idxs[s]);
      }
      ids.push_back(row.ids.unsqueeze(0).expand({segments[i].length, row.ids.size(0)}));
      weights.push_back(row.weights.unsqueeze(0).expand({segments[i].length, row.ids.size(0)}));
    }
    mixtures.push_back(Mixture{at::cat(ids), at::cat(weights)});
  }
  return mixtures;
}

}  // namespace

std::vector<Mixture> choose_mixtures(const Router& router, const ExpertBank& bank, const std::vector<int>& slot_idxs,
                                     const at::Tensor& x, ForwardState& state) {
  using Scope = RouterUse::Scope;
  using Sharing = RouterUse::Sharing;
  const RouterUse& use = router.use();
  auto memory = std::dynamic_pointer_cast<PassMemory>(state.own_memory);
  if (memory == nullptr) state.own_memory = memory = std::make_shared<PassMemory>();
  PassMemory::Pass& pass = memory->of(state.rows);
  if (!pass.knows_bias) pass.row_bias = bias_of_rows(state.rows, x.size(0), bank.num_experts(), x.device());
  pass.knows_bias = true;

  const auto route = [&](const std::vector<int>& slots) {
    if (use.scope == Scope::kToken) return router.route_group(slots, x, pass.row_bias);
    const std::vector<Segment> one = {Segment{.length = x.size(0)}};
    return by_sequence(router, slots, x, pass.row_bias, state.rows == nullptr ? one : state.rows->segments);
  };
  if (use.sharing == Sharing::kModule) return route(slot_idxs);
  if (use.sharing == Sharing::kInput || state.rows == nullptr) {
    return std::vector<Mixture>(slot_idxs.size(), route({slot_idxs.front()}).front());
  }
  const int key = use.sharing == Sharing::kLayer ? bank.slot_names()[slot_idxs.front()].layer : -1;
  auto found = pass.by_layer.find(key);
  if (found == pass.by_layer.end()) found = pass.by_layer.emplace(key, route({slot_idxs.front()}).front()).first;
  return std::vector<Mixture>(slot_idxs.size(), found->second);
}

}  // namespace skein
