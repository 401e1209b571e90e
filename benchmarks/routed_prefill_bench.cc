// What routing costs: prefill and decoding of a plain base and of the same base with a pool of random experts on every
// linear, as JSON on stdout. tools/bench/arrow_vs_skein.py sets it beside PEFT's Arrow.
//
//   routed_prefill_bench --base models/smollm2.gguf [--dtype f32|bf16] [--experts 36] [--rank 16] [--top-k 2]
//                        [--prompt-tokens 512] [--new-tokens 32] [--rounds 9] [--threads 2]
#include <algorithm>
#include <iostream>
#include <random>

#include "benchmarks/passes.h"
#include "benchmarks/timing.h"
#include "skein/base/concat.h"
#include "skein/route/routed_slot.h"
#include "skein/spec/base_model.h"

namespace skein {
namespace {

// Uniform with standard deviation 0.02. Random gates scatter the tokens over all experts: the worst case for grouping.
std::vector<float> random_floats(std::int64_t count, std::minstd_rand& generator) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = (static_cast<float>(generator()) / 2147483648.0f - 0.5f) * 0.07f;
  return values;
}

std::unique_ptr<RoutedSlots> random_pool(const Backbone& backbone, int num_experts, std::int64_t rank, int top_k) {
  std::minstd_rand generator(1);
  std::vector<LoraAdapter> adapters(num_experts);
  std::vector<GateFile> gates(num_experts);
  std::vector<std::string> names;
  const std::vector<SlotName>& slots = backbone.slots();
  for (int e = 0; e < num_experts; ++e) {
    names.push_back(concat("expert_", e));
    for (int slot_idx = 0; slot_idx < static_cast<int>(slots.size()); ++slot_idx) {
      LoraTensors module{.slot_idx = slot_idx, .rank = rank, .scale = 1.0 / static_cast<double>(rank)};
      module.a = random_floats(rank * slots[slot_idx].d_in, generator);
      module.b = random_floats(rank * slots[slot_idx].d_out, generator);
      adapters[e].modules.push_back(std::move(module));
      gates[e].modules.push_back({.slot_idx = slot_idx, .directions = random_floats(slots[slot_idx].d_in, generator)});
    }
    gates[e].kind = "phatgoose";
  }
  auto bank = std::make_shared<const ExpertBank>(adapters, names, slots, backbone.compute());
  RouterOptions options;
  options.top_k = top_k;
  auto router = make_router(options, *bank, gates, backbone.compute());
  return std::make_unique<RoutedSlots>(std::move(bank), std::move(router));
}

}  // namespace
}  // namespace skein

int main(int argc, char** argv) {
  using namespace skein;
  const ComputeOptions compute = or_throw(compute_options("cpu", argument(argc, argv, "dtype", "")));
  set_compute_threads(static_cast<int>(integer_argument(argc, argv, "threads", 0)));
  const BaseModel base = or_throw(open_base_model(real_env(), argument(argc, argv, "base", "models/smollm2.gguf")));
  const auto backbone = load_backbone(base, compute);
  const auto pool =
      random_pool(*backbone, static_cast<int>(integer_argument(argc, argv, "experts", 36)),
                  integer_argument(argc, argv, "rank", 16), static_cast<int>(integer_argument(argc, argv, "top-k", 2)));
  const std::vector<std::int32_t> tokens = synthetic_tokens(integer_argument(argc, argv, "prompt-tokens", 512));
  const std::int64_t num_new = integer_argument(argc, argv, "new-tokens", 32);
  // Plain and routed in turns: what else the machine does meets both. The best of each is what they cost undisturbed.
  double base_prefill = 1e9, routed_prefill = 1e9, base_decode = 1e9, routed_decode = 1e9;
  for (std::int64_t i = 0; i < integer_argument(argc, argv, "rounds", 9); ++i) {
    base_prefill = std::min(base_prefill, median_seconds(1, [&] { prefill(*backbone, tokens, nullptr); }));
    routed_prefill = std::min(routed_prefill, median_seconds(1, [&] { prefill(*backbone, tokens, pool.get()); }));
    base_decode = std::min(base_decode, decode_seconds(*backbone, 16, num_new, nullptr));
    routed_decode = std::min(routed_decode, decode_seconds(*backbone, 16, num_new, pool.get()));
  }
  std::cout << "{\"base_prefill_s\": " << base_prefill << ", \"routed_prefill_s\": " << routed_prefill
            << ", \"base_decode_s\": " << base_decode << ", \"routed_decode_s\": " << routed_decode
            << ", \"peak_bytes\": " << peak_memory_bytes() << "}\n";
}
