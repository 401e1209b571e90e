#include "tests/agreement/experts.h"

#include "skein/base/concat.h"
#include "skein/io/safetensors.h"
#include "skein/nn/bridge.h"
#include "tests/agreement/golden.h"

namespace skein::agreement {
namespace {

std::string folder_of(const std::string& name) { return concat(golden_folder(), "/agreement/experts/", name); }

}  // namespace

std::string base_of(const std::string& expert) { return expert.starts_with("t5") ? "t5_v11" : "llama"; }

LoraAdapter read_expert(const std::string& name, const std::vector<SlotName>& slots) {
  return or_throw(read_lora_adapter(real_env(), folder_of(name), slots));
}

RouterOptions single_expert(const std::string& name) {
  RouterOptions options;
  options.kind = "single";
  options.expert = name;
  return options;
}

std::unique_ptr<RoutedSlots> make_filler(const std::vector<std::string>& names, const Backbone& backbone,
                                         const RouterOptions& router) {
  std::vector<LoraAdapter> adapters;
  std::vector<GateFile> gates;
  for (const std::string& name : names) {
    adapters.push_back(read_expert(name, backbone.slots()));
    gates.push_back(or_throw(read_gate(real_env(), folder_of(name), "phatgoose", backbone.slots())));
  }
  auto bank = std::make_shared<const ExpertBank>(adapters, names, backbone.slots(), backbone.compute());
  auto made = make_router(router, *bank, gates, backbone.compute());
  return std::make_unique<RoutedSlots>(std::move(bank), std::move(made));
}

void set_gates(GatedLora& gated, const std::string& expert) {
  const auto file = or_throw(open_safetensors(real_env(), concat(folder_of(expert), "/gates/phatgoose.safetensors")));
  const std::vector<std::string> names = gated.parameter_names();
  const std::vector<at::Tensor> parameters = gated.parameters();
  const at::NoGradGuard no_gradients;
  for (std::size_t i = 0; i < names.size(); ++i) {
    parameters[i].copy_(load_tensor(*file, names[i], ComputeOptions{}));
  }
}

}  // namespace skein::agreement
