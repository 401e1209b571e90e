#include "skein/cli/routing_shares.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "skein/base/progress.h"
#include "skein/infer/encoded_batches.h"

namespace skein {
namespace {

// Sum of the weights per expert and row over the record's slots whose rows are `num_rows` tokens: (N, E) f64.
at::Tensor row_weights(const RoutingRecord& record, std::int64_t num_rows) {
  at::Tensor sums = at::zeros({num_rows, record.num_experts}, at::kDouble);
  for (const auto& calls : record.mixtures) {
    for (const Mixture& mixture : calls) {
      if (mixture.ids.size(0) != num_rows) continue;  // an encoder-decoder's other stream
      sums.scatter_add_(1, mixture.ids.to(at::kCPU, at::kLong), mixture.weights.to(at::kCPU, at::kDouble));
    }
  }
  return sums;
}

// Input and target as one stream; an encoder-decoder is followed on its source, which is where it reads the task.
PackedBatch pack_examples(const LoadedModel& model, const std::vector<EncodedExample>& examples) {
  std::vector<SequenceInput> sequences;
  for (const EncodedExample& example : examples) {
    SequenceInput sequence{.tokens = example.input, .hint = example.hint};
    if (!model.base.config.is_encoder_decoder()) {
      sequence.input_length = static_cast<std::int64_t>(example.input.size());
      sequence.tokens.insert(sequence.tokens.end(), example.target.begin(), example.target.end());
    }
    sequences.push_back(std::move(sequence));
  }
  return pack(sequences, model.backbone->compute().device);
}

void add_batch(const LoadedModel& model, const std::vector<EncodedExample>& encoded, std::vector<ExampleShares>& out,
               std::size_t first) {
  ForwardState state = model.new_state();
  auto record = std::make_shared<RoutingRecord>(static_cast<int>(model.backbone->slots().size()),
                                                static_cast<int>(model.expert_names.size()));
  state.memory = record;
  const PackedBatch batch = pack_examples(model, encoded);
  if (model.base.config.is_encoder_decoder()) {
    model.backbone->encode(batch, state);
  } else {
    model.backbone->forward(batch, nullptr, state);
  }
  const at::Tensor weights = row_weights(*record, batch.num_tokens());  // (N, E)
  for (std::size_t i = 0; i < encoded.size(); ++i) {
    const Segment& segment = batch.segments[i];
    at::Tensor shares = weights.narrow(0, segment.begin, segment.length).sum(0);  // (E)
    shares = shares / shares.sum().clamp_min(1e-300);
    out[first + i].shares.assign(shares.data_ptr<double>(), shares.data_ptr<double>() + shares.numel());
  }
}

}  // namespace

std::vector<ExampleShares> routing_shares(const LoadedModel& model, const std::vector<Example>& examples,
                                          const PromptOptions& options, std::int64_t max_batch_tokens) {
  if (model.expert_names.empty())
    throw Failure({"there are no routing shares without experts; give --library or --mixture", ErrorKind::kUsage});
  const c10::InferenceMode inference;
  std::vector<ExampleShares> out;
  for (const Example& example : examples) out.push_back({example.task, example.id, {}});
  Progress progress("routing", static_cast<std::int64_t>(examples.size()), "examples");
  for_each_encoded_batch(model, examples, options, max_batch_tokens, [&](const auto& encoded, std::size_t first) {
    add_batch(model, encoded, out, first);
    progress.update(static_cast<std::int64_t>(first + encoded.size()));
  });
  return out;
}

}  // namespace skein
