#include "benchmarks/passes.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "benchmarks/timing.h"
#include "skein/infer/decode.h"

namespace skein {
namespace {

std::int32_t next_token(const Backbone& backbone, const std::vector<std::int32_t>& tokens, KvSequence& cache,
                        ForwardState& state) {
  const at::Tensor hidden = backbone.forward(pack({{.tokens = tokens, .cache = &cache}}, at::kCPU), nullptr, state);
  return backbone.logits(hidden.narrow(0, hidden.size(0) - 1, 1)).argmax().item<std::int32_t>();
}

}  // namespace

std::vector<std::int32_t> synthetic_tokens(std::int64_t count) {
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<std::int32_t>((i * 7919 + 13) % 20000 + 1000));
  return tokens;
}

void prefill(const Backbone& backbone, const std::vector<std::int32_t>& tokens, const SlotFiller* filler) {
  const c10::InferenceMode no_gradients;
  ForwardState state{filler, nullptr};
  KvSequence cache(backbone.config(), at::TensorOptions(backbone.compute().dtype),
                   static_cast<std::int64_t>(tokens.size()));
  SequenceInput input{.tokens = tokens, .cache = &cache};
  read_ahead(backbone, input, DecodeOptions().rows_at_once, state);
  next_token(backbone, input.tokens, cache, state);
}

double decode_seconds(const Backbone& backbone, std::int64_t num_prompt, std::int64_t num_new,
                      const SlotFiller* filler) {
  const c10::InferenceMode no_gradients;
  ForwardState state{filler, nullptr};
  KvSequence cache(backbone.config(), at::TensorOptions(backbone.compute().dtype), num_prompt + num_new);
  std::int32_t token = next_token(backbone, synthetic_tokens(num_prompt), cache, state);
  return median_seconds(static_cast<int>(num_new) - 1, [&] { token = next_token(backbone, {token}, cache, state); });
}

}  // namespace skein
