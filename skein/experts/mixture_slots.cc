#include "skein/experts/mixture_slots.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "skein/base/check.h"
#include "skein/experts/lora_group.h"
#include "skein/experts/mixed_lora.h"
#include "skein/experts/mixed_scale.h"
#include "skein/experts/routing_record.h"
#include "skein/nn/bridge.h"
#include "skein/nn/feed_forward.h"
#include "skein/nn/packed_batch.h"

namespace skein {
namespace {

bool is_cross_source(const SlotName& slot) {
  return slot.module.find("EncDecAttention") != std::string::npos && (slot.kind == "k" || slot.kind == "v");
}

// The module that a linear belongs to: "model.layers.0.mlp" of "model.layers.0.mlp.down_proj".
std::string parent_of(const SlotName& slot) { return slot.module.substr(0, slot.module.rfind('.')); }

// In slot order: a feed-forward's first linear is the first slot with its parent.
std::vector<int> find_feed_forwards(const std::vector<SlotName>& slots, const std::vector<int>& module_of_slot) {
  std::vector<int> first_of(slots.size(), -1);
  for (std::size_t last = 0; last < slots.size(); ++last) {
    if (module_of_slot[last] < 0 || !scales_input(slots[last])) continue;
    std::size_t first = last;
    while (first > 0 && parent_of(slots[first - 1]) == parent_of(slots[last])) --first;
    first_of[first] = module_of_slot[last];
  }
  return first_of;
}

at::Tensor leaf(const std::vector<float>& values, const Shape& shape, const ComputeOptions& compute, bool trained) {
  if (values.empty()) return {};
  return tensor_of(values, shape).to(compute.device).requires_grad_(trained);
}

std::vector<float> floats_or_none(const at::Tensor& tensor) {
  return tensor.defined() ? floats_of(tensor.detach()) : std::vector<float>();
}

// (N, E) weights as a Mixture, best first.
Mixture as_mixture(const at::Tensor& weights) {
  const auto [sorted, ids] = at::sort(weights, /*stable=*/true, /*dim=*/-1, /*descending=*/true);
  return {ids.to(at::kInt), sorted};
}

// Inner products of each pair of experts: of l_e - 1, or of B_e A_e without forming it.
at::Tensor inner_products(const at::Tensor& scaling, const at::Tensor& a, const at::Tensor& b) {
  if (scaling.defined()) {
    const at::Tensor shift = (scaling - 1).to(at::kDouble);
    return at::mm(shift, shift.t());
  }
  // <B_i A_i, B_j A_j> = sum over (r, s) of (B_i^T B_j)_rs (A_i A_j^T)_rs
  const at::Tensor aa = at::einsum("ird,jsd->ijrs", {a, a}), bb = at::einsum("ior,jos->ijrs", {b, b});
  return (aa * bb).sum({2, 3}).to(at::kDouble);
}

}  // namespace

MixtureSlots::MixtureSlots(const MixtureFile& mixture, const BackboneConfig& base, const ComputeOptions& compute,
                           Trains trains)
    : config_(mixture.config),
      base_(base),
      slots_(slot_names(base)),
      trains_(trains),
      rule_{mixture.config.top_k, mixture.config.renormalises},
      module_of_slot_(slots_.size(), -1) {
  const std::int64_t experts = config_.num_experts, rank = config_.rank;
  const bool trains_experts = trains == Trains::kAll || trains == Trains::kExperts;
  const bool trains_routers = trains == Trains::kAll || trains == Trains::kRouters;
  for (const MixtureModule& from : mixture.modules) {
    const SlotName& slot = slots_[static_cast<std::size_t>(from.slot_idx)];
    Module module;
    module.slot_idx = from.slot_idx;
    module.scaling =
        leaf(from.scaling, {experts, scales_input(slot) ? slot.d_in : slot.d_out}, compute, trains_experts);
    module.a = leaf(from.a, {experts, rank, slot.d_in}, compute, trains_experts);
    module.b = leaf(from.b, {experts, slot.d_out, rank}, compute, trains_experts);
    module.router = leaf(from.router, {experts, router_width(config_, base, slot)}, compute, trains_routers);
    module.in_source = slot.in_encoder || is_cross_source(slot);
    module_of_slot_[from.slot_idx] = static_cast<int>(modules_.size());
    modules_.push_back(std::move(module));
  }
  feed_forward_of_slot_ = config_.kind == MixtureKind::kMov ? find_feed_forwards(slots_, module_of_slot_)
                                                            : std::vector<int>(slots_.size(), -1);
  losses_.num_routers = num_routers();
}

void MixtureSlots::set_losses(const RouterLossWeights& weights) {
  losses_ = weights;
  losses_.num_routers = num_routers();
}

RowFacts MixtureSlots::wanted_facts() const {
  if (config_.router_input == RouterInput::kSentence && config_.num_experts > 1) return RowFacts::kSentences;
  return losses_.balance != 0 || losses_.z_loss != 0 ? RowFacts::kSequences : RowFacts::kNone;
}

std::vector<at::Tensor> MixtureSlots::forward(const LinearGroup& group, const at::Tensor& x,
                                              ForwardState& state) const {
  return config_.kind == MixtureKind::kMov ? scale_group(group, x, state) : mix_group(group, x, state);
}

at::Tensor MixtureSlots::logits_of(int module_idx, const at::Tensor& read, const ForwardState& state) const {
  const Module& module = modules_[module_idx];
  if (config_.router_input != RouterInput::kSentence) return router_logits(read, module.router);
  SKEIN_CHECK(state.rows != nullptr && state.rows->sentence.defined());
  const SequenceRows& rows = *state.rows;
  return router_logits(rows.sentence, module.router).index_select(0, rows.sequence_of);
}

at::Tensor MixtureSlots::weights_of(int module_idx, const at::Tensor& given_logits, std::int64_t heads,
                                    ForwardState& state) const {
  const Module& module = modules_[module_idx];
  auto* record = dynamic_cast<RouterRecord*>(state.memory.get());
  at::Tensor logits = given_logits;
  const bool has_losses = losses_.balance != 0 || losses_.z_loss != 0;
  if (has_losses && (at::GradMode::is_enabled() || record != nullptr)) {
    SKEIN_CHECK(state.rows != nullptr);
    logits =
        with_router_losses(logits, rule_, *state.rows, module.in_source ? losses_.num_source_rows : losses_.num_rows,
                           losses_, record != nullptr ? &record->losses : nullptr);
  }
  const at::Tensor by_head = routing_weights(logits, rule_).view({-1, heads, config_.num_experts});  // (N, heads, E)
  this->record(module_idx, logits, by_head, state);
  return by_head;
}

void MixtureSlots::record(int module_idx, const at::Tensor& logits, const at::Tensor& weights,
                          const ForwardState& state) const {
  if (auto* record = dynamic_cast<RouterRecord*>(state.memory.get())) {
    record->add(module_idx, logits, weights.flatten(0, 1));
  }
  if (auto* trace = dynamic_cast<RoutingRecord*>(state.memory.get())) {
    trace->mixtures[modules_[module_idx].slot_idx].push_back(as_mixture(weights.detach().mean(1)));
  }
}

at::Tensor MixtureSlots::route(int module_idx, const at::Tensor& read, std::int64_t heads, ForwardState& state) const {
  if (config_.num_experts == 1) return at::ones({read.size(0) / heads, heads, 1}, read.options().dtype(at::kFloat));
  return weights_of(module_idx, logits_of(module_idx, read, state), heads, state);
}

// The usual case of training. Others (losses on the logits, mixed parameters, a router of sentences) are put together
// from their pieces.
bool MixtureSlots::runs_as_one_node() const {
  return at::GradMode::is_enabled() && config_.num_experts > 1 && config_.mixes == Mixes::kOutputs &&
         config_.router_input == RouterInput::kHidden && losses_.balance == 0 && losses_.z_loss == 0;
}

std::vector<at::Tensor> MixtureSlots::mix_as_one(const LinearGroup& group, const at::Tensor& x,
                                                 ForwardState& state) const {
  std::vector<MixedExperts> experts;
  std::vector<int> module_idxs;
  for (std::size_t i = 0; i < group.parts.size(); ++i) {
    const int slot_idx = group.parts[i].slot_idx;
    const int idx = slot_idx < 0 ? -1 : module_of_slot_[slot_idx];
    if (idx < 0) continue;
    experts.push_back({i, modules_[idx].a, modules_[idx].b, modules_[idx].router});
    module_idxs.push_back(idx);
  }
  const bool is_watched = state.memory != nullptr;
  MixedRouting routing;
  auto y = mixed_lora_group(group, experts, rule_, config_.alpha / static_cast<double>(config_.rank), x,
                            is_watched ? &routing : nullptr);
  for (std::size_t i = 0; is_watched && i < module_idxs.size(); ++i) {
    record(module_idxs[i], routing.logits[i], routing.weights[i].unsqueeze(1), state);
  }
  return y;
}

// Keys and values: y = the linear's output for x.
at::Tensor MixtureSlots::scaled_output(int module_idx, const at::Tensor& x, const at::Tensor& y,
                                       ForwardState& state) const {
  const at::Tensor& scaling = modules_[module_idx].scaling;
  if (config_.router_input != RouterInput::kProjected) {
    return scale_by_mixture(y, route(module_idx, x, 1, state), scaling);
  }
  const std::int64_t heads = y.size(1) / base_.d_head;
  return scale_by_mixture(y, route(module_idx, y.reshape({-1, base_.d_head}), heads, state), scaling);
}

std::vector<at::Tensor> MixtureSlots::scale_group(const LinearGroup& group, const at::Tensor& x,
                                                  ForwardState& state) const {
  const int first_slot = group.parts.front().slot_idx;
  const int own = first_slot < 0 ? -1 : module_of_slot_[first_slot];
  const bool is_gated = base_.gated_ff;
  const bool reads_hidden = config_.router_input == RouterInput::kHidden;
  if (own >= 0 && scales_input(slots_[first_slot])) {
    if (is_gated) return apply_frozen(group, x);  // done already, on the second branch
    const at::Tensor weights = reads_hidden ? state.carried : route(own, x, 1, state);
    return apply_frozen(group, scale_by_mixture(x, weights, modules_[own].scaling));
  }
  std::vector<at::Tensor> y = apply_frozen(group, x);
  const int feed_forward = first_slot < 0 ? -1 : feed_forward_of_slot_[first_slot];
  if (feed_forward >= 0) {
    if (is_gated) {
      // act(gate) * s * up: scaling the second branch is the same, and the activated first one is at hand here alone.
      const at::Tensor read = config_.router_input == RouterInput::kProjected ? activate(base_.activation, y[0]) : x;
      y[1] = scale_by_mixture(y[1], route(feed_forward, read, 1, state), modules_[feed_forward].scaling);
    } else if (reads_hidden) {
      state.carried = route(feed_forward, x, 1, state);
    }
    return y;
  }
  for (std::size_t i = 0; i < y.size(); ++i) {
    const int slot_idx = group.parts[i].slot_idx;
    const int idx = slot_idx < 0 ? -1 : module_of_slot_[slot_idx];
    if (idx >= 0) y[i] = scaled_output(idx, x, y[i], state);
  }
  return y;
}

std::vector<at::Tensor> MixtureSlots::mix_group(const LinearGroup& group, const at::Tensor& x,
                                                ForwardState& state) const {
  const std::int64_t experts = config_.num_experts, rank = config_.rank;
  std::vector<LoraBranch> branches;
  std::vector<int> present;
  for (const FrozenLinear& part : group.parts) {
    const int idx = part.slot_idx < 0 ? -1 : module_of_slot_[part.slot_idx];
    branches.push_back(idx < 0 ? LoraBranch{} : LoraBranch{experts * rank, config_.alpha / static_cast<double>(rank)});
    if (idx >= 0) present.push_back(idx);
  }
  if (present.empty()) return apply_frozen(group, x);
  if (runs_as_one_node()) return mix_as_one(group, x, state);
  std::vector<at::Tensor> a, b, routers, weights;
  for (const int idx : present) {
    a.push_back(modules_[idx].a.flatten(0, 1));                     // (E R, D_in)
    b.push_back(modules_[idx].b.permute({1, 0, 2}).reshape({-1}));  // D_out rows of E R
    routers.push_back(modules_[idx].router);
  }
  const auto parts = static_cast<std::int64_t>(present.size());
  const bool one_product = config_.router_input == RouterInput::kHidden && experts > 1;
  const at::Tensor logits = one_product ? router_logits(x, at::cat(routers)) : at::Tensor();  // (N, parts E)
  for (std::int64_t i = 0; i < parts; ++i) {
    weights.push_back(one_product
                          ? weights_of(present[i], logits.narrow(1, i * experts, experts).contiguous(), 1, state)
                          : route(present[i], x, 1, state));
  }
  const at::Tensor p = at::stack(weights, 1).view({-1, parts, experts, 1});  // (N, parts, E, 1)
  const at::Tensor a_rounded = at::cat(a).to(x.scalar_type());
  const bool with_gradient = at::GradMode::is_enabled();
  const at::Tensor z = with_gradient ? at::linear(x, a_rounded) : frozen_linear(x, a_rounded.detach(), {});
  at::Tensor middle = z.to(at::kFloat).view({-1, parts, experts, rank}) * p;
  // (sum_f p_f B_f)(sum_e p_e A_e) x = sum_f B_f (p_f sum_e p_e A_e x): no matrix is formed for a token.
  if (config_.mixes == Mixes::kParameters) middle = middle.sum(2, /*keepdim=*/true) * p;
  return expand_group(group, branches, x, middle.to(x.scalar_type()).view({-1, parts * experts * rank}), at::cat(b));
}

std::vector<at::Tensor> MixtureSlots::parameters() const {
  std::vector<at::Tensor> parameters;
  for (const Module& module : modules_) {
    for (const at::Tensor* tensor : {&module.scaling, &module.a, &module.b, &module.router}) {
      if (tensor->defined() && tensor->requires_grad()) parameters.push_back(*tensor);
    }
  }
  return parameters;
}

std::vector<std::string> MixtureSlots::parameter_names() const {
  std::vector<std::string> names;
  for (const Module& module : modules_) {
    const std::string& name = slots_[module.slot_idx].module;
    if (module.scaling.defined() && module.scaling.requires_grad()) names.push_back(name + ".experts.scaling");
    if (module.a.defined() && module.a.requires_grad()) names.push_back(name + ".experts.lora_A");
    if (module.b.defined() && module.b.requires_grad()) names.push_back(name + ".experts.lora_B");
    if (module.router.requires_grad()) names.push_back(name + ".router.weight");
  }
  return names;
}

MixtureFile MixtureSlots::to_file() const {
  MixtureFile file;
  file.config = config_;
  for (const Module& module : modules_) {
    file.modules.push_back({module.slot_idx, floats_or_none(module.scaling), floats_or_none(module.a),
                            floats_or_none(module.b), floats_of(module.router.detach())});
  }
  return file;
}

at::Tensor MixtureSlots::expert_cosines() const {
  const at::NoGradGuard no_grad;
  at::Tensor sum = at::zeros({config_.num_experts, config_.num_experts}, at::kDouble);
  for (const Module& module : modules_) {
    const at::Tensor products = inner_products(module.scaling, module.a, module.b).cpu();
    const at::Tensor norms = products.diagonal().clamp_min(0).sqrt();
    const at::Tensor scale = norms.unsqueeze(1) * norms.unsqueeze(0);
    sum += at::where(scale > 0, products / scale.clamp_min(1e-300), at::zeros_like(products));
  }
  return sum / static_cast<double>(modules_.size());
}

MixtureFile new_mixture(const MixtureConfig& config, const BackboneConfig& base, const MixtureInit& init) {
  or_throw(check_mixture_config(config));
  const at::Generator generator = at::detail::createCPUGenerator(init.seed);
  const auto normal = [&](std::int64_t count, double deviation) {
    return floats_of(at::empty({count}, at::kFloat).normal_(0, deviation, generator));
  };
  const std::vector<SlotName> slots = slot_names(base);
  const std::int64_t experts = config.num_experts;
  MixtureFile mixture;
  mixture.config = config;
  for (const int s : or_throw(mixture_slots(config, slots))) {
    const SlotName& slot = slots[s];
    MixtureModule module{.slot_idx = s};
    if (config.kind == MixtureKind::kMov) {
      module.scaling.assign(static_cast<std::size_t>(experts * (scales_input(slot) ? slot.d_in : slot.d_out)), 1.0F);
    } else {
      module.a = normal(experts * config.rank * slot.d_in, init.a_std);
      module.b.assign(static_cast<std::size_t>(experts * slot.d_out * config.rank), 0.0F);
    }
    module.router = normal(experts * router_width(config, base, slot), init.router_std);
    mixture.modules.push_back(std::move(module));
  }
  return mixture;
}

MixtureFile mixture_of(const std::vector<LoraAdapter>& adapters, const std::vector<std::string>& names,
                       const MixtureConfig& given, const BackboneConfig& base, const MixtureInit& init) {
  SKEIN_CHECK(!adapters.empty() && adapters.size() == names.size());
  MixtureConfig config = given;
  const std::vector<SlotName> slots = slot_names(base);
  config.num_experts = static_cast<int>(adapters.size());
  config.experts = names;
  config.rank = 1;
  config.target_kinds.clear();
  for (const LoraAdapter& adapter : adapters) {
    for (const LoraTensors& module : adapter.modules) {
      config.rank = std::max(config.rank, module.rank);
      auto& kinds = config.target_kinds;
      const std::string& kind = slots[module.slot_idx].kind;
      if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) kinds.push_back(kind);
    }
  }
  config.alpha = static_cast<double>(config.rank);
  MixtureFile mixture = new_mixture(config, base, init);
  std::vector<int> module_of_slot(slots.size(), -1);
  for (std::size_t i = 0; i < mixture.modules.size(); ++i) {
    MixtureModule& module = mixture.modules[i];
    module_of_slot[module.slot_idx] = static_cast<int>(i);
    std::fill(module.a.begin(), module.a.end(), 0.0F);
  }
  for (std::size_t e = 0; e < adapters.size(); ++e) {
    for (const LoraTensors& from : adapters[e].modules) {
      const SlotName& slot = slots[from.slot_idx];
      MixtureModule& to = mixture.modules[module_of_slot[from.slot_idx]];
      const auto expert = static_cast<std::int64_t>(e);
      std::copy(from.a.begin(), from.a.end(), to.a.begin() + expert * config.rank * slot.d_in);
      for (std::int64_t row = 0; row < slot.d_out; ++row) {
        for (std::int64_t r = 0; r < from.rank; ++r) {
          to.b[(expert * slot.d_out + row) * config.rank + r] =
              static_cast<float>(from.scale) * from.b[row * from.rank + r];
        }
      }
    }
  }
  return mixture;
}

}  // namespace skein
