#include "skein/route/spectral_gates.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include "skein/base/check.h"
#include "skein/experts/combine.h"
#include "skein/nn/bridge.h"

namespace skein {
namespace {

// PEFT's top_right_singular_vec_from_BA: f32, every module from the same start.
at::Tensor by_power_iteration(const LoraTensors& module, const SlotName& slot, const ArrowOptions& options) {
  constexpr double kEps = 1e-8;
  const at::Tensor a = at::tensor(module.a).view({module.rank, slot.d_in});
  const at::Tensor b = at::tensor(module.b).view({slot.d_out, module.rank});
  const at::Tensor core = b.t().matmul(b);  // (R, R)
  at::Tensor v = at::randn({slot.d_in}, at::detail::createCPUGenerator(options.seed), at::kFloat);
  v = v / (v.norm() + kEps);
  for (std::int64_t i = 0; i < options.steps; ++i) {
    const at::Tensor w = a.t().mv(core.mv(a.mv(v)));
    v = w / (w.norm() + kEps);
  }
  return v;
}

// direction_of(module, slot) of every module -> (g, D_in).
template <typename Directions>
GateFile make_gate(const std::string& kind, const LoraAdapter& adapter, const std::vector<SlotName>& slots,
                   const Directions& directions_of) {
  GateFile gate;
  gate.kind = kind;
  for (const LoraTensors& module : adapter.modules) {
    const at::Tensor directions = directions_of(module, slots[static_cast<std::size_t>(module.slot_idx)]);
    gate.modules.push_back({module.slot_idx, directions.size(0), floats_of(directions)});
  }
  return gate;
}

}  // namespace

GateFile arrow_gate(const LoraAdapter& adapter, const std::vector<SlotName>& slots, const ArrowOptions& options) {
  return make_gate("arrow", adapter, slots, [&](const LoraTensors& module, const SlotName& slot) {
    if (options.by_power_iteration) return by_power_iteration(module, slot, options).unsqueeze(0);
    return singular_triples(module, slot).v.narrow(1, 0, 1).t();
  });
}

GateFile spectr_gate(const LoraAdapter& adapter, const std::vector<SlotName>& slots, const SpectralOptions& options) {
  return make_gate("spectr", adapter, slots, [&](const LoraTensors& module, const SlotName& slot) {
    const LoraTriples triples = singular_triples(module, slot);
    const std::int64_t all = triples.sigma.size(0);
    const std::int64_t kept = options.directions > 0 ? std::min(options.directions, all) : all;
    return (triples.v * triples.sigma.pow(options.power)).narrow(1, 0, kept).t();
  });
}

GateFile gate_from_weights(const std::string& kind, const LoraAdapter& adapter, const std::vector<SlotName>& slots) {
  SKEIN_CHECK(kind == "arrow" || kind == "spectr");
  return kind == "arrow" ? arrow_gate(adapter, slots) : spectr_gate(adapter, slots);
}

}  // namespace skein
