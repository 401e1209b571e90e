// Prefill and decoding speed of one base, as JSON on stdout. tools/bench/generate_vs_peers.py sets it beside the peers.
//
//   generate_bench --base models/smollm2.gguf [--dtype f32|bf16] [--base-bits 8|4] [--prompt-tokens 512] [--new-tokens
//   64] [--threads 2]
#include <chrono>
#include <iostream>

#include "benchmarks/passes.h"
#include "benchmarks/timing.h"
#include "skein/nn/quantised_weight.h"
#include "skein/spec/base_model.h"
#include "skein/spec/tensor_names.h"

int main(int argc, char** argv) {
  using namespace skein;
  const auto started = std::chrono::steady_clock::now();
  ComputeOptions compute = or_throw(compute_options("cpu", argument(argc, argv, "dtype", "")));
  compute.base_bits = static_cast<int>(integer_argument(argc, argv, "base-bits", 0));
  compute.eight_bit_inputs = compute.dtype == at::kBFloat16;
  set_compute_threads(static_cast<int>(integer_argument(argc, argv, "threads", 0)));
  const BaseModel base = or_throw(open_base_model(real_env(), argument(argc, argv, "base", "models/smollm2.gguf")));
  const auto backbone = load_backbone(base, compute);
  const double load = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();

  const std::int64_t num_prompt = integer_argument(argc, argv, "prompt-tokens", 512);
  const std::vector<std::int32_t> tokens = synthetic_tokens(num_prompt);
  const double prefill_seconds = median_seconds(5, [&] { prefill(*backbone, tokens, nullptr); });
  const double decode = decode_seconds(*backbone, 16, integer_argument(argc, argv, "new-tokens", 64), nullptr);
  const std::int64_t peak = peak_memory_bytes();

  // Every matrix is read once per decoded token; a tied embedding is the head, an untied one costs one row.
  std::int64_t weights = 0;
  for (const TensorName& tensor : tensor_names(base.config)) {
    if (tensor.role == TensorRole::kEmbedding && !base.config.tied_embeddings) continue;
    if (compute.base_bits != 0 && tensor.shape.size() == 2) {
      const int bits = tensor.role == TensorRole::kLinear ? compute.base_bits : 8;
      weights += QuantisedWeight::bytes_of(tensor.shape[0], tensor.shape[1], bits);
    } else {
      weights += *checked_numel(tensor.shape) * (compute.dtype == at::kBFloat16 ? 2 : 4);
    }
  }
  std::cout << "{\"load_s\": " << load << ", \"prefill_tokens_per_s\": " << num_prompt / prefill_seconds
            << ", \"decode_tokens_per_s\": " << 1 / decode << ", \"floor_tokens_per_s\": " << read_bandwidth() / weights
            << ", \"peak_bytes\": " << peak << "}\n";
}
