#include "skein/train/target_batch.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include "skein/base/check.h"

namespace skein {
namespace {

at::Tensor to_device(const std::vector<std::int64_t>& values, const c10::Device& device) {
  return at::tensor(values, at::TensorOptions().dtype(at::kLong)).to(device);
}

}  // namespace

TargetBatch make_target_batch(const TrainData& data, std::span<const std::int64_t> example_idxs,
                              const Backbone& backbone) {
  const c10::Device& device = backbone.compute().device;
  const bool encoder_decoder = backbone.config().is_encoder_decoder();
  TargetBatch result;
  std::vector<SequenceInput> sources, sequences;
  std::vector<std::int64_t> rows, targets;
  std::int64_t begin = 0;  // row of N where the sequence at hand starts
  for (const std::int64_t example_idx : example_idxs) {
    const EncodedExample& example = data.examples[static_cast<std::size_t>(example_idx)];
    SKEIN_CHECK(!example.input.empty() && !example.target.empty());
    const auto target_length = static_cast<std::int64_t>(example.target.size());
    // The last target token (end of sequence) is predicted, never read.
    const auto read_end = example.target.end() - 1;
    SequenceInput sequence;
    if (encoder_decoder) {
      sequence.source = static_cast<std::int64_t>(sources.size());
      sources.push_back(SequenceInput{.tokens = example.input});
      sequence.tokens.push_back(static_cast<std::int32_t>(backbone.config().decoder_start_token));
    } else {
      sequence.tokens = example.input;
      sequence.input_length = static_cast<std::int64_t>(example.input.size());
    }
    const auto first_row = begin + static_cast<std::int64_t>(sequence.tokens.size()) - 1;
    sequence.tokens.insert(sequence.tokens.end(), example.target.begin(), read_end);
    for (std::int64_t i = 0; i < target_length; ++i) {
      rows.push_back(first_row + i);
      targets.push_back(example.target[static_cast<std::size_t>(i)]);
    }
    begin += static_cast<std::int64_t>(sequence.tokens.size());
    result.target_lengths.push_back(target_length);
    sequences.push_back(std::move(sequence));
  }
  result.batch = pack(sequences, device);
  if (encoder_decoder) result.source = pack(sources, device);
  result.rows = to_device(rows, device);
  result.targets = to_device(targets, device);
  result.num_tokens = begin + (result.source ? result.source->num_tokens() : 0);
  return result;
}

at::Tensor row_weights(const std::vector<std::int64_t>& target_lengths, LossMean mean, const StepSize& step) {
  std::int64_t num_rows = 0;
  for (const std::int64_t length : target_lengths) num_rows += length;
  at::Tensor weights = at::empty({num_rows}, at::kFloat);
  switch (mean) {
    case LossMean::kToken:
      return weights.fill_(1.0 / static_cast<double>(step.target_tokens));
    case LossMean::kMicrobatch:
      return weights.fill_(1.0 / static_cast<double>(num_rows * step.microbatches));
    case LossMean::kSequence:
      break;
  }
  std::int64_t begin = 0;
  for (const std::int64_t length : target_lengths) {
    weights.narrow(0, begin, length).fill_(1.0 / static_cast<double>(length * step.sequences));
    begin += length;
  }
  return weights;
}

at::Tensor target_hidden(const Backbone& backbone, const TargetBatch& batch, const SlotFiller* filler,
                         std::shared_ptr<SlotMemory> memory) {
  ForwardState state{filler, std::move(memory)};
  if (!batch.source) return backbone.forward(batch.batch, nullptr, state).index_select(0, batch.rows);
  const EncodedSource source = backbone.encode(*batch.source, state);
  return backbone.forward(batch.batch, &source, state).index_select(0, batch.rows);
}

}  // namespace skein
