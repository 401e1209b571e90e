#include "skein/nn/stack.h"

#include <ATen/ATen.h>

namespace skein {
namespace {

RowFacts wanted(const ForwardState& state) {
  return state.filler == nullptr ? RowFacts::kNone : state.filler->wanted_facts();
}

at::Tensor sequence_of_rows(const std::vector<Segment>& segments, const at::Tensor& x) {
  std::vector<std::int64_t> owners(static_cast<std::size_t>(x.size(0)));
  for (std::size_t i = 0; i < segments.size(); ++i) {
    std::fill_n(owners.begin() + segments[i].begin, segments[i].length, static_cast<std::int64_t>(i));
  }
  return at::tensor(owners, at::TensorOptions().dtype(c10::ScalarType::Long)).to(x.device());
}

// sentence_of(segment): (D).
template <typename SentenceOf>
SequenceRows rows_with(const std::vector<Segment>& segments, const at::Tensor& x, const ForwardState& state,
                       SentenceOf sentence_of) {
  SequenceRows rows;
  if (wanted(state) == RowFacts::kNone || segments.empty()) return rows;
  rows.num_sequences = static_cast<std::int64_t>(segments.size());
  rows.sequence_of = sequence_of_rows(segments, x);
  if (wanted(state) != RowFacts::kSentences) return rows;
  std::vector<at::Tensor> sentences;
  for (const Segment& segment : segments) {
    const bool begun = segment.cache != nullptr && segment.cache->sentence.defined();
    sentences.push_back(begun ? segment.cache->sentence : sentence_of(segment));
    if (segment.cache != nullptr) segment.cache->sentence = sentences.back();
  }
  rows.sentence = at::stack(sentences);
  return rows;
}

}  // namespace

SequenceRows sequence_rows(const std::vector<Segment>& segments, const at::Tensor& x, const ForwardState& state) {
  return rows_with(segments, x, state, [&x](const Segment& segment) {
    const at::Tensor input = x.narrow(0, segment.begin, segment.input_length);
    return input.to(c10::ScalarType::Float).mean(0).to(x.scalar_type());
  });
}

SequenceRows decoder_rows(const std::vector<Segment>& segments, const at::Tensor& x, const SequenceRows* source,
                          const ForwardState& state) {
  return rows_with(segments, x, state, [source](const Segment& segment) { return source->sentence[segment.source]; });
}

}  // namespace skein
