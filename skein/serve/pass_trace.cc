#include "skein/serve/pass_trace.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "skein/base/check.h"

namespace skein {
namespace {

// k and v of a cross-attention are computed by the decoder, from the encoder's rows.
bool reads_source(const SlotName& slot) {
  const bool is_cross = slot.module.find("EncDecAttention") != std::string::npos;
  return slot.in_encoder || (is_cross && (slot.kind == "k" || slot.kind == "v"));
}

}  // namespace

PassTrace::PassTrace(const RoutingRecord& record, const std::vector<SlotName>& slots) {
  for (std::size_t s = 0; s < record.mixtures.size(); ++s) {
    if (record.mixtures[s].empty()) continue;
    SKEIN_CHECK(record.mixtures[s].size() == 1);
    const Mixture& mixture = record.mixtures[s].front();
    slots_.push_back({static_cast<std::int32_t>(s), reads_source(slots[s]),
                      mixture.ids.to(at::kCPU, at::kInt).contiguous(),
                      mixture.weights.to(at::kCPU, at::kFloat).contiguous()});
  }
}

TokenTrace PassTrace::of_row(std::int64_t row, bool in_source) const {
  TokenTrace trace;
  for (const Slot& slot : slots_) {
    if (slot.reads_source == in_source) trace.k = std::max(trace.k, static_cast<int>(slot.ids.size(1)));
  }
  for (const Slot& slot : slots_) {
    if (slot.reads_source != in_source) continue;
    SKEIN_CHECK(row < slot.ids.size(0));
    trace.slots.push_back(slot.slot_idx);
    const std::int64_t k = slot.ids.size(1);
    for (std::int64_t i = 0; i < trace.k; ++i) {
      const float weight = i < k ? slot.weights.const_data_ptr<float>()[row * k + i] : 0.0F;
      trace.ids.push_back(weight != 0 ? slot.ids.const_data_ptr<std::int32_t>()[row * k + i] : -1);
      trace.weights.push_back(weight);
    }
  }
  return trace;
}

}  // namespace skein
