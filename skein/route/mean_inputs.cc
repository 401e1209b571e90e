#include "skein/route/mean_inputs.h"

#include <ATen/ATen.h>

#include "skein/base/result.h"
#include "skein/nn/bridge.h"
#include "skein/nn/forward_state.h"
#include "skein/nn/packed_batch.h"

namespace skein {

MeanInputs::MeanInputs(const SlotFiller& inner, int num_slots) : inner_(inner), sums_(num_slots), counts_(num_slots) {}

std::vector<at::Tensor> MeanInputs::forward(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const {
  at::Tensor sum;  // over the sequences, shared by the parts
  std::int64_t count = 0;
  const auto add = [&](const at::Tensor& rows) {
    const at::Tensor mean = rows.to(at::kDouble).mean(0).to(at::kCPU);
    sum = sum.defined() ? sum + mean : mean;
    ++count;
  };
  if (state.rows == nullptr) {
    add(x);
  } else {
    for (const Segment& segment : state.rows->segments) {
      if (segment.length > 0) add(x.narrow(0, segment.begin, segment.length));
    }
  }
  for (const FrozenLinear& part : group.parts) {
    if (part.slot_idx < 0 || count == 0) continue;
    sums_[part.slot_idx] = sums_[part.slot_idx].defined() ? sums_[part.slot_idx] + sum : sum;
    counts_[part.slot_idx] += count;
  }
  return inner_.forward(group, x, state);
}

GateFile MeanInputs::to_gate(const LoraAdapter& adapter) const {
  GateFile gate;
  gate.kind = "average-activation";
  for (const LoraTensors& module : adapter.modules) {
    const at::Tensor& sum = sums_[module.slot_idx];
    if (!sum.defined()) throw Failure({"a module has seen no token; give more examples"});
    gate.modules.push_back({module.slot_idx, 1, floats_of(sum / static_cast<double>(counts_[module.slot_idx]))});
  }
  return gate;
}

}  // namespace skein
