#include "skein/experts/trainable_lora.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "skein/base/check.h"
#include "skein/base/concat.h"
#include "skein/experts/lora_group.h"
#include "skein/nn/bridge.h"

namespace skein {
namespace {

// The distinct kinds of the slots, in forward order.
std::vector<std::string> kinds_of(const std::vector<SlotName>& slots) {
  std::vector<std::string> kinds;
  for (const SlotName& slot : slots) {
    if (std::find(kinds.begin(), kinds.end(), slot.kind) == kinds.end()) kinds.push_back(slot.kind);
  }
  return kinds;
}

void check_target_kinds(const std::vector<std::string>& targets, const std::vector<SlotName>& slots) {
  const std::vector<std::string> kinds = kinds_of(slots);
  for (const std::string& target : targets) {
    if (std::find(kinds.begin(), kinds.end(), target) != kinds.end()) continue;
    std::string known;
    for (const std::string& kind : kinds) known += (known.empty() ? "" : ", ") + kind;
    throw Failure(
        {concat("target ", printable(target), " is no linear of this base, which has ", known), ErrorKind::kUsage});
  }
}

at::Tensor first_a(const LoraInit& init, std::int64_t d_in, const at::Generator& generator) {
  const at::Tensor a = at::empty({init.rank, d_in}, at::kFloat);
  if (init.a_std > 0) return a.normal_(0, init.a_std, generator);
  const double bound = 1 / std::sqrt(static_cast<double>(d_in));  // kaiming-uniform with a = sqrt 5
  return a.uniform_(-bound, bound, generator);
}

// The tensors of a group's modules, gathered in part order.
struct Gathered {
  std::vector<LoraBranch> branches;
  std::vector<at::Tensor> a, b, v;
  std::vector<int> slot_idxs;  // of the parts with a branch
};

at::Tensor stacked(const std::vector<at::Tensor>& tensors) {
  return tensors.size() == 1 ? tensors[0] : at::cat(tensors);
}

}  // namespace

TrainableLora::TrainableLora(const std::vector<SlotName>& slots, const LoraInit& init, const c10::Device& device)
    : slots_(slots), module_of_slot_(slots.size(), -1) {
  SKEIN_CHECK(init.rank > 0);
  check_target_kinds(init.target_kinds, slots);
  config_.rank = init.rank;
  config_.alpha = init.alpha;
  config_.target_modules = init.target_kinds.empty() ? kinds_of(slots_) : init.target_kinds;
  const at::Generator generator = at::detail::createCPUGenerator(init.seed);
  for (std::size_t s = 0; s < slots.size(); ++s) {
    const auto& targets = init.target_kinds;
    if (!targets.empty() && std::find(targets.begin(), targets.end(), slots[s].kind) == targets.end()) continue;
    Module module;
    module.slot_idx = static_cast<int>(s);
    module.rank = init.rank;
    module.scale = init.alpha / static_cast<double>(init.rank);
    module.a = first_a(init, slots[s].d_in, generator).to(device).requires_grad_(true);
    module.b = at::zeros({slots[s].d_out, init.rank}, at::kFloat).to(device).requires_grad_(true);
    module_of_slot_[s] = static_cast<int>(modules_.size());
    modules_.push_back(std::move(module));
  }
}

TrainableLora::TrainableLora(const std::vector<SlotName>& slots, const LoraAdapter& start, const c10::Device& device)
    : slots_(slots), config_(start.config), module_of_slot_(slots.size(), -1) {
  for (const LoraTensors& tensors : start.modules) {
    SKEIN_CHECK(tensors.slot_idx >= 0 && tensors.slot_idx < static_cast<int>(slots.size()));
    const SlotName& slot = slots[tensors.slot_idx];
    Module module;
    module.slot_idx = tensors.slot_idx;
    module.rank = tensors.rank;
    module.scale = tensors.scale;
    module.a = tensor_of(tensors.a, {tensors.rank, slot.d_in}).to(device).requires_grad_(true);
    module.b = tensor_of(tensors.b, {slot.d_out, tensors.rank}).to(device).requires_grad_(true);
    module_of_slot_[tensors.slot_idx] = static_cast<int>(modules_.size());
    modules_.push_back(std::move(module));
  }
}

std::vector<at::Tensor> TrainableLora::forward(const LinearGroup& group, const at::Tensor& x,
                                               ForwardState& /*state*/) const {
  Gathered all;
  for (const FrozenLinear& part : group.parts) {
    const int idx = part.slot_idx < 0 ? -1 : module_of_slot_[part.slot_idx];
    all.branches.push_back(idx < 0 ? LoraBranch{} : LoraBranch{modules_[idx].rank, modules_[idx].scale});
    if (idx < 0) continue;
    all.a.push_back(modules_[idx].a);
    all.b.push_back(modules_[idx].b.reshape({-1}));
  }
  if (all.a.empty()) return apply_frozen(group, x);
  return lora_group(group, all.branches, x, stacked(all.a), stacked(all.b));
}

std::vector<at::Tensor> TrainableLora::parameters() const {
  std::vector<at::Tensor> parameters;
  for (const Module& module : modules_) {
    parameters.push_back(module.a);
    parameters.push_back(module.b);
  }
  return parameters;
}

std::vector<std::string> TrainableLora::parameter_names() const {
  std::vector<std::string> names;
  for (const Module& module : modules_) {
    names.push_back(slots_[module.slot_idx].module + ".lora_A");
    names.push_back(slots_[module.slot_idx].module + ".lora_B");
  }
  return names;
}

LoraAdapter TrainableLora::to_adapter(const std::string& base_hint, bool encoder_decoder) const {
  LoraAdapter adapter;
  adapter.config = config_;
  adapter.config.base_model_name_or_path = base_hint;
  adapter.config.task_type = encoder_decoder ? "SEQ_2_SEQ_LM" : "CAUSAL_LM";
  for (const Module& module : modules_) {
    adapter.modules.push_back(LoraTensors{module.slot_idx, module.rank, module.scale, floats_of(module.a.detach()),
                                          floats_of(module.b.detach())});
  }
  return adapter;
}

GatedLora::GatedLora(const LoraAdapter& expert, const std::vector<SlotName>& slots, const ComputeOptions& compute)
    : slots_(slots), module_of_slot_(slots.size(), -1) {
  for (const LoraTensors& tensors : expert.modules) {
    SKEIN_CHECK(tensors.slot_idx >= 0 && tensors.slot_idx < static_cast<int>(slots.size()));
    const SlotName& slot = slots[tensors.slot_idx];
    Module module;
    module.slot_idx = tensors.slot_idx;
    module.a = tensor_of(tensors.a, {tensors.rank, slot.d_in}).to(compute.device, compute.dtype);
    module.b = tensor_of(tensors.b, {slot.d_out, tensors.rank})
                   .mul_(static_cast<float>(tensors.scale))
                   .to(compute.device, compute.dtype);
    add(std::move(module), compute);
  }
  for (const Ia3Tensors& tensors : expert.vectors) {
    Module module;
    module.slot_idx = tensors.slot_idx;
    module.scales_input = tensors.scales_input;
    module.shift =
        tensor_of(tensors.scaling, {static_cast<std::int64_t>(tensors.scaling.size())}).sub_(1).to(compute.device);
    add(std::move(module), compute);
  }
}

void GatedLora::add(Module module, const ComputeOptions& compute) {
  module.v = at::zeros({slots_[module.slot_idx].d_in}, at::kFloat).to(compute.device).requires_grad_(true);
  module_of_slot_[module.slot_idx] = static_cast<int>(modules_.size());
  modules_.push_back(std::move(module));
}

// Few and small: plain operations, gradients by libtorch.
std::vector<at::Tensor> GatedLora::scale_group(const LinearGroup& group, const at::Tensor& x,
                                               ForwardState& state) const {
  auto* record = dynamic_cast<GateRecord*>(state.memory.get());
  // (N, 1)
  const auto gate_of = [&](const Module& module) {
    const at::Tensor gates = at::sigmoid(at::mv(x.to(at::kFloat), module.v));
    if (record) record->gates[module.slot_idx].push_back(gates.detach().clone());
    return gates.unsqueeze(1);
  };
  const auto scaled = [&](const at::Tensor& values, const Module& module) {
    return (values.to(at::kFloat) * (1 + gate_of(module) * module.shift)).to(values.scalar_type());
  };
  const auto module_at = [&](std::size_t part) -> const Module* {
    const int slot_idx = group.parts[part].slot_idx;
    const int idx = slot_idx < 0 ? -1 : module_of_slot_[slot_idx];
    return idx < 0 ? nullptr : &modules_[idx];
  };
  const Module* first = module_at(0);
  if (first != nullptr && first->scales_input) {
    SKEIN_CHECK(group.parts.size() == 1);
    return apply_frozen(group, scaled(x, *first));
  }
  std::vector<at::Tensor> y = apply_frozen(group, x);
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (const Module* module = module_at(i)) y[i] = scaled(y[i], *module);
  }
  return y;
}

std::vector<at::Tensor> GatedLora::forward(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const {
  if (!modules_.empty() && modules_.front().shift.defined()) return scale_group(group, x, state);
  Gathered all;
  for (const FrozenLinear& part : group.parts) {
    const int idx = part.slot_idx < 0 ? -1 : module_of_slot_[part.slot_idx];
    all.branches.push_back(idx < 0 ? LoraBranch{} : LoraBranch{modules_[idx].a.size(0), 1});
    if (idx < 0) continue;
    all.a.push_back(modules_[idx].a);
    all.b.push_back(modules_[idx].b.reshape({-1}));
    all.v.push_back(modules_[idx].v);
    all.slot_idxs.push_back(part.slot_idx);
  }
  if (all.a.empty()) return apply_frozen(group, x);
  at::Tensor gates;  // (N, parts with a branch)
  auto y = gated_lora_group(group, all.branches, x, stacked(all.a), stacked(all.b), at::stack(all.v), &gates);
  if (auto* record = dynamic_cast<GateRecord*>(state.memory.get())) {
    for (std::size_t i = 0; i < all.slot_idxs.size(); ++i) {
      record->gates[all.slot_idxs[i]].push_back(gates.select(1, static_cast<std::int64_t>(i)).clone());
    }
  }
  return y;
}

std::vector<at::Tensor> GatedLora::parameters() const {
  std::vector<at::Tensor> parameters;
  for (const Module& module : modules_) parameters.push_back(module.v);
  return parameters;
}

std::vector<std::string> GatedLora::parameter_names() const {
  std::vector<std::string> names;
  for (const Module& module : modules_) names.push_back(slots_[module.slot_idx].module + ".gate");
  return names;
}

GateFile GatedLora::to_gate(std::int64_t steps, const std::string& base_fingerprint) const {
  GateFile gate;
  gate.kind = "phatgoose";
  gate.steps = steps;
  gate.base_fingerprint = base_fingerprint;
  for (const Module& module : modules_) {
    gate.modules.push_back(GateTensors{module.slot_idx, 1, floats_of(module.v.detach())});
  }
  return gate;
}

}  // namespace skein
