#include "skein/nn/stack.h"

#include <algorithm>

#include <ATen/ATen.h>

namespace skein {
namespace {

RowFacts wanted_of(const Segment& segment, const ForwardState& state) {
  const SlotFiller* filler = segment.filler != nullptr ? segment.filler : state.filler;
  return filler == nullptr ? RowFacts::kNone : filler->wanted_facts();
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
std::shared_ptr<const SequenceRows> rows_with(const std::vector<Segment>& segments, const at::Tensor& x,
                                              const ForwardState& state, SentenceOf sentence_of) {
  auto rows = std::make_shared<SequenceRows>();
  rows->segments = segments;
  RowFacts wanted = RowFacts::kNone;
  for (const Segment& segment : segments) wanted = std::max(wanted, wanted_of(segment, state));
  if (wanted == RowFacts::kNone) return rows;
  rows->sequence_of = sequence_of_rows(segments, x);
  if (wanted != RowFacts::kSentences) return rows;
  std::vector<at::Tensor> sentences;
  for (const Segment& segment : segments) {
    if (wanted_of(segment, state) != RowFacts::kSentences) {  // another filler's
      sentences.push_back(at::zeros({x.size(1)}, x.options()));
      continue;
    }
    const bool begun = segment.cache != nullptr && segment.cache->sentence.defined();
    sentences.push_back(begun ? segment.cache->sentence : sentence_of(segment));
    if (segment.cache != nullptr) segment.cache->sentence = sentences.back();
  }
  rows->sentence = at::stack(sentences);
  return rows;
}

}  // namespace

std::shared_ptr<const SequenceRows> sequence_rows(const std::vector<Segment>& segments, const at::Tensor& x,
                                                  const ForwardState& state) {
  return rows_with(segments, x, state, [&x](const Segment& segment) {
    const at::Tensor input = x.narrow(0, segment.begin, segment.input_length);
    return input.to(c10::ScalarType::Float).mean(0).to(x.scalar_type());
  });
}

std::shared_ptr<const SequenceRows> decoder_rows(const std::vector<Segment>& segments, const at::Tensor& x,
                                                 const SequenceRows* source, const ForwardState& state) {
  return rows_with(segments, x, state, [source](const Segment& segment) { return source->sentence[segment.source]; });
}

}  // namespace skein
