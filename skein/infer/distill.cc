#include "skein/infer/distill.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>

#include "skein/base/interrupt.h"
#include "skein/base/progress.h"

namespace skein {
namespace {

// Source, input and target of examples as one pass over everything but the last token of each target.
struct Teacher {
  std::vector<SequenceInput> sources, sequences;
  std::vector<std::int64_t> rows;      // that predict a target token
  std::vector<std::int64_t> expected;  // which
  std::int64_t num_rows = 0;

  void add(const EncodedExample& example, const BackboneConfig& config) {
    std::vector<TokenId> stream = example.input;
    SequenceInput sequence{.hint = example.hint};
    if (config.is_encoder_decoder()) {
      sequence.source = static_cast<std::int64_t>(sources.size());
      sources.push_back({.tokens = example.input, .hint = example.hint});
      stream = {static_cast<TokenId>(config.decoder_start_token)};
    }
    for (std::size_t t = 0; t < example.target.size(); ++t) {
      rows.push_back(num_rows + static_cast<std::int64_t>(stream.size() + t) - 1);
      expected.push_back(example.target[t]);
    }
    num_rows += static_cast<std::int64_t>(stream.size() + example.target.size()) - 1;
    sequence.tokens = std::move(stream);
    // A branch: the prompt decides for its sequence without the answer (RouterUse::Scope).
    if (example.target.size() > 1) sequence.branches.emplace_back(example.target.begin(), example.target.end() - 1);
    sequences.push_back(std::move(sequence));
  }

  at::Tensor hidden(const Backbone& backbone, ForwardState& state) const {  // (N, D)
    const c10::Device device = backbone.compute().device;
    EncodedSource source;
    if (!sources.empty()) source = backbone.encode(pack(sources, device), state);
    return backbone.forward(pack(sequences, device), sources.empty() ? nullptr : &source, state);
  }

  at::Tensor predicting(const Backbone& backbone, const SlotFiller* filler) const {  // (targets, D)
    ForwardState state{filler, nullptr};
    const at::Tensor read = hidden(backbone, state);
    return read.index_select(0, at::tensor(rows).to(read.device()));
  }

  at::Tensor log_probabilities(const Backbone& backbone, const SlotFiller* filler) const {  // (targets, V) f32
    return at::log_softmax(backbone.logits(predicting(backbone, filler)).to(at::kFloat), 1);
  }
};

void stop_if_interrupted() {
  if (interrupted()) throw Failure({"interrupted; nothing was written", ErrorKind::kInterrupted});
}

}  // namespace

at::Tensor mean_routing_weights(const LoadedModel& model, const std::vector<EncodedExample>& examples,
                                std::int64_t max_batch_tokens) {
  if (model.bank == nullptr) throw Failure({"there is no routing without experts; give --library", ErrorKind::kUsage});
  const c10::InferenceMode inference;
  const auto num_slots = static_cast<std::int64_t>(model.backbone->slots().size());
  const at::Tensor sums = at::zeros({num_slots, model.bank->num_experts()}, at::kDouble);
  const at::Tensor counts = at::zeros({num_slots, 1}, at::kDouble);
  Progress progress("routing", static_cast<std::int64_t>(examples.size()), "examples");
  Teacher batch;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    stop_if_interrupted();
    batch.add(examples[i], model.base.config);
    if (batch.num_rows < max_batch_tokens && i + 1 < examples.size()) continue;
    ForwardState state = model.new_state();
    const auto record = std::make_shared<RoutingRecord>(static_cast<int>(num_slots), model.bank->num_experts());
    state.memory = record;
    batch.hidden(*model.backbone, state);
    for (std::int64_t s = 0; s < num_slots; ++s) {
      for (const Mixture& mixture : record->mixtures[s]) {
        sums[s].scatter_add_(0, mixture.ids.to(at::kCPU, at::kLong).flatten(),
                             mixture.weights.to(at::kCPU, at::kDouble).flatten());
        counts[s] += static_cast<double>(mixture.ids.size(0));
      }
    }
    progress.update(static_cast<std::int64_t>(i + 1));
    batch = Teacher();
  }
  return sums / counts.clamp_min(1);
}

at::Tensor predicting_rows(const Backbone& backbone, const SlotFiller* filler,
                           const std::vector<EncodedExample>& examples) {
  const at::NoGradGuard no_gradient;
  Teacher all;
  for (const EncodedExample& example : examples) all.add(example, backbone.config());
  return all.predicting(backbone, filler);
}

OutputDistance output_distance(const Backbone& backbone, const SlotFiller* reference, const SlotFiller* other,
                               const std::vector<EncodedExample>& examples) {
  const c10::InferenceMode inference;
  OutputDistance distance;
  Progress progress("comparing", static_cast<std::int64_t>(examples.size()), "examples");
  for (std::size_t i = 0; i < examples.size(); ++i) {
    stop_if_interrupted();
    Teacher one;
    one.add(examples[i], backbone.config());
    const at::Tensor p = one.log_probabilities(backbone, reference), q = one.log_probabilities(backbone, other);
    const at::Tensor expected = at::tensor(one.expected).unsqueeze(1).to(p.device());
    distance.reference_loss -= p.gather(1, expected).to(at::kDouble).sum().item<double>();
    distance.loss -= q.gather(1, expected).to(at::kDouble).sum().item<double>();
    distance.divergence += (p.exp() * (p - q)).to(at::kDouble).sum().item<double>();
    distance.num_tokens += static_cast<std::int64_t>(one.expected.size());
    progress.update(static_cast<std::int64_t>(i + 1));
  }
  const auto count = static_cast<double>(std::max<std::int64_t>(1, distance.num_tokens));
  distance.reference_loss /= count;
  distance.loss /= count;
  distance.divergence /= count;
  return distance;
}

}  // namespace skein
