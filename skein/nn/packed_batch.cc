#include "skein/nn/packed_batch.h"

#include <ATen/ATen.h>

#include "skein/base/check.h"

namespace skein {

PackedBatch pack(const std::vector<SequenceInput>& sequences, const c10::Device& device) {
  std::vector<std::int64_t> ids, positions;
  PackedBatch batch;
  for (const SequenceInput& sequence : sequences) {
    SKEIN_CHECK(sequence.branches.empty() || sequence.cache == nullptr);
    Segment segment{.begin = static_cast<std::int64_t>(ids.size()),
                    .cache = sequence.cache,
                    .source = sequence.source,
                    .hint = sequence.hint,
                    .filler = sequence.filler,
                    .rows_apart = sequence.rows_apart};
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
