#include "skein/eval/routing_map.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "skein/base/concat.h"
#include "skein/infer/encoded_batches.h"

namespace skein {
namespace {

// Sums over all tokens so far.
struct Sums {
  at::Tensor weights;  // (slots, E) f64
  at::Tensor entropy;  // (slots) f64, bits
  at::Tensor rows;     // (slots) f64
};

void add_record(const RoutingRecord& record, Sums& sums) {
  for (std::size_t s = 0; s < record.mixtures.size(); ++s) {
    const auto slot = static_cast<std::int64_t>(s);
    for (const Mixture& mixture : record.mixtures[s]) {
      const at::Tensor weights = mixture.weights.to(at::kCPU, at::kDouble);  // (N, k)
      sums.weights[slot].scatter_add_(0, mixture.ids.to(at::kCPU, at::kLong).flatten(), weights.flatten());
      const at::Tensor safe = weights.clamp_min(1e-12);
      sums.entropy[slot] -= (weights * safe.log2()).sum();
      sums.rows[slot] += static_cast<double>(weights.size(0));
    }
  }
}

void add_batch(const LoadedModel& model, const std::vector<EncodedExample>& encoded, Sums& sums) {
  ForwardState state = model.new_state();
  const auto record =
      std::make_shared<RoutingRecord>(static_cast<int>(model.backbone->slots().size()), model.bank->num_experts());
  state.memory = record;
  const c10::Device device = model.backbone->compute().device;
  std::vector<SequenceInput> sources, sequences;
  for (const EncodedExample& example : encoded) {
    SequenceInput sequence{.tokens = example.input};
    sequence.hint = example.hint;
    if (model.base.config.is_encoder_decoder()) {
      sources.push_back(sequence);
      sequence.source = static_cast<std::int64_t>(sources.size()) - 1;
      sequence.tokens = {static_cast<TokenId>(model.base.config.decoder_start_token)};
    }
    sequence.tokens.insert(sequence.tokens.end(), example.target.begin(), example.target.end());
    sequences.push_back(std::move(sequence));
  }
  EncodedSource source;
  if (!sources.empty()) source = model.backbone->encode(pack(sources, device), state);
  model.backbone->forward(pack(sequences, device), sources.empty() ? nullptr : &source, state);
  add_record(*record, sums);
}

Json as_json(const LoadedModel& model, const Sums& sums, std::size_t num_examples) {
  Json slots = Json::array(), shares = Json::array(), entropy = Json::array();
  const bool two_stacks = model.base.config.is_encoder_decoder();
  for (std::size_t s = 0; s < model.backbone->slots().size(); ++s) {
    const auto slot = static_cast<std::int64_t>(s);
    const double rows = sums.rows[slot].item<double>(), total = sums.weights[slot].sum().item<double>();
    if (rows == 0 || total == 0) continue;
    const SlotName& name = model.backbone->slots()[s];
    const std::string stack = !two_stacks ? "" : name.in_encoder ? "encoder " : "decoder ";
    slots.push_back({concat(stack, name.layer), stack + name.kind});
    Json row = Json::array();
    for (int e = 0; e < model.bank->num_experts(); ++e) row.push_back(sums.weights[slot][e].item<double>() / total);
    shares.push_back(std::move(row));
    entropy.push_back(sums.entropy[slot].item<double>() / rows);
  }
  return {{"experts", model.bank->names()},
          {"slots", std::move(slots)},
          {"shares", std::move(shares)},
          {"entropy", std::move(entropy)},
          {"examples", num_examples}};
}

}  // namespace

Json routing_map(const LoadedModel& model, const std::vector<Example>& examples, const PromptOptions& options,
                 std::int64_t max_batch_tokens) {
  if (model.bank == nullptr) throw Failure({"there is no routing without experts", ErrorKind::kUsage});
  const c10::InferenceMode inference;
  const auto num_slots = static_cast<std::int64_t>(model.backbone->slots().size());
  Sums sums{at::zeros({num_slots, model.bank->num_experts()}, at::kDouble), at::zeros({num_slots}, at::kDouble),
            at::zeros({num_slots}, at::kDouble)};
  for_each_encoded_batch(model, examples, options, max_batch_tokens,
                         [&](const auto& encoded, std::size_t) { add_batch(model, encoded, sums); });
  return as_json(model, sums, examples.size());
}

}  // namespace skein
