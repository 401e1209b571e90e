// What routed slots cost over the plain linears, layer stack of SmolLM2-135M's shape with random weights: prefill of
// 512 tokens and decoding of one, split into the router and the sparse product. No model file is needed.
//
//   routing_bench [--layers 30] [--threads 2] [--repeats 7] [--rank 16] [--top-k 2] [--width 576] [--kv-width 192]
//                 [--ff-width 1536]
#include <cstdio>
#include <random>

#include <ATen/ATen.h>

#include "benchmarks/timing.h"
#include "skein/base/concat.h"
#include "skein/experts/apply.h"
#include "skein/experts/random_experts.h"
#include "skein/nn/compute.h"
#include "skein/route/routed_slot.h"

namespace skein {
namespace {

struct StackShape {
  std::int64_t layers, width, kv_width, ff_width, rank;
  int top_k;
};

struct Stack {
  std::vector<SlotName> slots;
  std::vector<LinearGroup> groups;
};

Stack make_stack(const StackShape& shape, c10::ScalarType dtype) {
  Stack stack;
  const auto add_group = [&](std::int64_t d_in, const std::vector<std::int64_t>& widths) {
    std::vector<at::Tensor> weights, biases(widths.size());
    std::vector<int> slot_idxs;
    for (const std::int64_t width : widths) {
      slot_idxs.push_back(static_cast<int>(stack.slots.size()));
      stack.slots.push_back(slot_named("model.linear", d_in, width));
      weights.push_back((at::randn({width, d_in}) * 0.04).to(dtype));
    }
    stack.groups.push_back(make_linear_group(weights, biases, slot_idxs));
  };
  for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
    add_group(shape.width, {shape.width, shape.kv_width, shape.kv_width});
    add_group(shape.width, {shape.width});
    add_group(shape.width, {shape.ff_width, shape.ff_width});
    add_group(shape.ff_width, {shape.width});
  }
  return stack;
}

struct Pool {
  std::shared_ptr<const ExpertBank> bank;
  std::shared_ptr<const Router> router;
};

// Random gates scatter the tokens over all experts: the worst case for grouping.
Pool make_pool(const Stack& stack, const StackShape& shape, int num_experts, const ComputeOptions& compute) {
  std::mt19937_64 generator(1);
  std::vector<LoraAdapter> adapters;
  std::vector<GateFile> gates;
  std::vector<std::string> names;
  // One expert drawn, copied for the others: drawing 10^9 numbers would take longer than the measurement.
  const LoraAdapter first =
      random_adapter(stack.slots, std::vector<std::int64_t>(stack.slots.size(), shape.rank), generator);
  for (int e = 0; e < num_experts; ++e) {
    names.push_back(concat("expert_", e));
    adapters.push_back(first);
    gates.push_back(random_gate(stack.slots, generator));
  }
  Pool pool;
  pool.bank = std::make_shared<const ExpertBank>(adapters, names, stack.slots, compute);
  RouterOptions options;
  options.top_k = shape.top_k;
  pool.router = make_router(options, *pool.bank, gates, compute);
  return pool;
}

std::vector<int> slots_of(const LinearGroup& group) {
  std::vector<int> slot_idxs;
  for (const FrozenLinear& part : group.parts) slot_idxs.push_back(part.slot_idx);
  return slot_idxs;
}

void measure(const Stack& stack, const Pool& pool, const StackShape& shape, std::int64_t num_rows,
             c10::ScalarType dtype, int repeats) {
  const c10::InferenceMode inference;
  std::vector<at::Tensor> inputs;
  std::vector<std::vector<Mixture>> mixtures;
  double base_flops = 0, router_flops = 0, lora_flops = 0;
  const auto rows = static_cast<double>(num_rows);
  for (const LinearGroup& group : stack.groups) {
    const std::int64_t d_in = group.weight.size(1);
    inputs.push_back(at::randn({num_rows, d_in}).to(dtype));
    mixtures.push_back(pool.router->route_group(slots_of(group), inputs.back(), {}));
    base_flops += 2 * rows * static_cast<double>(group.weight.numel());
    for (const FrozenLinear& part : group.parts) {
      router_flops += 2 * rows * static_cast<double>(d_in) * pool.bank->num_experts();
      lora_flops += 2 * rows * static_cast<double>((d_in + part.weight.size(0)) * shape.rank * shape.top_k);
    }
  }
  const RoutedSlots routed(pool.bank, pool.router);
  ForwardState state;
  const double base_seconds = median_seconds(repeats, [&] {
    for (std::size_t g = 0; g < stack.groups.size(); ++g) apply_frozen(stack.groups[g], inputs[g]);
  });
  const double routed_seconds = median_seconds(repeats, [&] {
    for (std::size_t g = 0; g < stack.groups.size(); ++g) routed.forward(stack.groups[g], inputs[g], state);
  });
  const double router_seconds = median_seconds(repeats, [&] {
    for (std::size_t g = 0; g < stack.groups.size(); ++g)
      pool.router->route_group(slots_of(stack.groups[g]), inputs[g], {});
  });
  std::vector<std::vector<at::Tensor>> all_outputs;
  for (std::size_t g = 0; g < stack.groups.size(); ++g) all_outputs.push_back(apply_frozen(stack.groups[g], inputs[g]));
  const double lora_seconds = median_seconds(repeats, [&] {
    for (std::size_t g = 0; g < stack.groups.size(); ++g) {
      for (std::size_t i = 0; i < stack.groups[g].parts.size(); ++i) {
        apply_mixture(pool.bank->slot(stack.groups[g].parts[i].slot_idx), mixtures[g][i], inputs[g], all_outputs[g][i]);
      }
    }
  });
  const auto part = [&](const char* name, double seconds, double flops) {
    std::printf("   %s %8.2f ms %6.2f GFLOP %5.0f GFLOP/s %5.1f %%", name, seconds * 1e3, flops * 1e-9,
                flops / seconds * 1e-9, 100 * seconds / base_seconds);
  };
  std::printf("%-5s N %4ld E %4d", dtype == at::kBFloat16 ? "bf16" : "f32", static_cast<long>(num_rows),
              pool.bank->num_experts());
  part("plain", base_seconds, base_flops);
  part("router", router_seconds, router_flops);
  part("experts", lora_seconds, lora_flops);
  std::printf("   routed/plain %.2f\n", routed_seconds / base_seconds);
  std::fflush(stdout);
}

}  // namespace
}  // namespace skein

int main(int argc, char** argv) {
  using namespace skein;
  set_compute_threads(static_cast<int>(integer_argument(argc, argv, "threads", 0)));
  const StackShape shape{
      integer_argument(argc, argv, "layers", 30),    integer_argument(argc, argv, "width", 576),
      integer_argument(argc, argv, "kv-width", 192), integer_argument(argc, argv, "ff-width", 1536),
      integer_argument(argc, argv, "rank", 16),      static_cast<int>(integer_argument(argc, argv, "top-k", 2))};
  const int repeats = static_cast<int>(integer_argument(argc, argv, "repeats", 7));
  for (const c10::ScalarType dtype : {at::kBFloat16, at::kFloat}) {
    const Stack stack = make_stack(shape, dtype);
    for (const int num_experts : {8, 36, 166}) {
      const Pool pool = make_pool(stack, shape, num_experts, ComputeOptions{.dtype = dtype});
      for (const std::int64_t num_rows : {512, 1}) measure(stack, pool, shape, num_rows, dtype, repeats);
    }
  }
}
