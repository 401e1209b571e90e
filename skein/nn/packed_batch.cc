#include "skein/nn/packed_batch.h"

#include <ATen/ATen.h>

#include "skein/base/check.h"

namespace skein {

KvSequence::KvSequence(const BackboneConfig& config, const at::TensorOptions& options, std::int64_t capacity)
    : capacity_(std::max<std::int64_t>(capacity, 1)) {
  const std::int64_t num_layers = config.is_encoder_decoder() ? config.num_decoder_layers : config.num_layers;
  for (std::int64_t layer = 0; layer < num_layers; ++layer) {
    keys_.push_back(at::empty({capacity_, config.num_kv_heads, config.d_head}, options));
    values_.push_back(at::empty({capacity_, config.num_kv_heads, config.d_head}, options));
  }
}

void KvSequence::reserve(int layer, std::int64_t num_tokens) {
  if (keys_[layer].size(0) >= num_tokens) return;
  // Doubling keeps the copies of a long generation linear in its length; every layer reaches the same capacity.
  while (capacity_ < num_tokens) capacity_ *= 2;
  for (at::Tensor* stored : {&keys_[layer], &values_[layer]}) {
    at::Tensor grown = at::empty({capacity_, stored->size(1), stored->size(2)}, stored->options());
    grown.narrow(0, 0, length_).copy_(stored->narrow(0, 0, length_));
    *stored = grown;
  }
}

std::pair<at::Tensor, at::Tensor> KvSequence::append(int layer, const at::Tensor& k, const at::Tensor& v) {
  SKEIN_CHECK(layer >= 0 && layer < static_cast<int>(keys_.size()));
  const at::NoGradGuard no_grad;
  const std::int64_t num_tokens = k.size(0);
  reserve(layer, length_ + num_tokens);
  keys_[layer].narrow(0, length_, num_tokens).copy_(k);
  values_[layer].narrow(0, length_, num_tokens).copy_(v);
  return {keys_[layer].narrow(0, 0, length_ + num_tokens), values_[layer].narrow(0, 0, length_ + num_tokens)};
}

void KvSequence::advance(std::int64_t num_tokens) { length_ += num_tokens; }

PackedBatch pack(const std::vector<SequenceInput>& sequences, const c10::Device& device) {
  std::vector<std::int64_t> ids, positions;
  PackedBatch batch;
  for (const SequenceInput& sequence : sequences) {
    SKEIN_CHECK(sequence.branches.empty() || sequence.cache == nullptr);
    Segment segment{.begin = static_cast<std::int64_t>(ids.size()),
                    .cache = sequence.cache,
                    .source = sequence.source,
                    .hint = sequence.hint};
    const auto add = [&](const std::vector<std::int32_t>& tokens, std::int64_t first_position) {
      ids.insert(ids.end(), tokens.begin(), tokens.end());
      for (std::size_t i = 0; i < tokens.size(); ++i)
        positions.push_back(first_position + static_cast<std::int64_t>(i));
    };
    add(sequence.tokens, sequence.cache != nullptr ? sequence.cache->length() : 0);
    for (const auto& branch : sequence.branches) {
      add(branch, static_cast<std::int64_t>(sequence.tokens.size()));
      segment.branches.push_back(static_cast<std::int64_t>(branch.size()));
    }
    segment.length = static_cast<std::int64_t>(ids.size()) - segment.begin;
    segment.input_length =
        sequence.input_length >= 0 ? sequence.input_length : static_cast<std::int64_t>(sequence.tokens.size());
    batch.segments.push_back(std::move(segment));
  }
  const auto options = at::TensorOptions().dtype(c10::ScalarType::Long);
  const auto to_device = [&](std::vector<std::int64_t>& values) {
    return at::from_blob(values.data(), {static_cast<std::int64_t>(values.size())}, options).clone().to(device);
  };
  batch.ids = to_device(ids);
  batch.positions = to_device(positions);
  return batch;
}

}  // namespace skein
