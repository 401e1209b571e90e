#include "skein/serve/mixed_slots.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "skein/base/check.h"
#include "skein/nn/packed_batch.h"

namespace skein {
namespace {

// Rows [begin, begin + count) of a stream, and the state their filler sees.
struct Part {
  std::int64_t begin = 0, count = 0;
  ForwardState state;
};

// The parts of every stream of a pass; a stream is known by its rows, which are held.
struct MixedMemory : SlotMemory {
  struct Stream {
    std::shared_ptr<const SequenceRows> rows;
    std::vector<Part> parts;
  };
  std::vector<Stream> streams;
};

// The sequences [first, end) of a stream as a stream of their own.
std::shared_ptr<const SequenceRows> rows_of_part(const SequenceRows& all, std::size_t first, std::size_t end) {
  auto rows = std::make_shared<SequenceRows>();
  rows->segments.assign(all.segments.begin() + static_cast<std::ptrdiff_t>(first),
                        all.segments.begin() + static_cast<std::ptrdiff_t>(end));
  const std::int64_t begin = rows->segments.front().begin;
  std::int64_t count = 0;
  for (Segment& segment : rows->segments) {
    segment.begin -= begin;
    count += segment.length;
  }
  if (all.sequence_of.defined()) {
    rows->sequence_of = all.sequence_of.narrow(0, begin, count) - static_cast<std::int64_t>(first);
  }
  if (all.sentence.defined()) {
    rows->sentence = all.sentence.narrow(0, static_cast<std::int64_t>(first), static_cast<std::int64_t>(end - first));
  }
  return rows;
}

std::vector<Part>& parts_of(const std::map<const SlotFiller*, std::shared_ptr<SlotMemory>>& memories,
                            ForwardState& state) {
  auto memory = std::dynamic_pointer_cast<MixedMemory>(state.own_memory);
  if (memory == nullptr) state.own_memory = memory = std::make_shared<MixedMemory>();
  const auto found = std::find_if(memory->streams.begin(), memory->streams.end(),
                                  [&](const MixedMemory::Stream& stream) { return stream.rows == state.rows; });
  if (found != memory->streams.end()) return found->parts;
  SKEIN_CHECK(state.rows != nullptr);
  const std::vector<Segment>& segments = state.rows->segments;
  std::vector<Part> parts;
  for (std::size_t first = 0; first < segments.size();) {
    const SlotFiller* filler = segments[first].filler;
    std::size_t end = first;
    std::int64_t count = 0;
    while (end < segments.size() && segments[end].filler == filler) count += segments[end++].length;
    if (count > 0) {
      const auto own = memories.find(filler);
      parts.push_back({segments[first].begin, count,
                       ForwardState{.filler = filler,
                                    .memory = own == memories.end() ? nullptr : own->second,
                                    .rows = rows_of_part(*state.rows, first, end)}});
    }
    first = end;
  }
  return memory->streams.emplace_back(MixedMemory::Stream{state.rows, std::move(parts)}).parts;
}

// What the frozen weights multiply: x, with the rows of fillers that scale their input replaced.
at::Tensor shared_input(const std::vector<Part>& parts, const LinearGroup& group, const at::Tensor& x,
                        std::vector<ForwardState*>& states) {
  at::Tensor input = x;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const SlotFiller* filler = parts[i].state.filler;
    if (filler == nullptr || !filler->splits()) continue;
    const at::Tensor rows = x.narrow(0, parts[i].begin, parts[i].count);
    const at::Tensor own = filler->product_input(group, rows, *states[i]);
    if (own.is_same(rows)) continue;
    if (input.is_same(x)) input = x.clone();
    input.narrow(0, parts[i].begin, parts[i].count).copy_(own);
  }
  return input;
}

}  // namespace

std::vector<at::Tensor> MixedSlots::forward(const LinearGroup& group, const at::Tensor& x, ForwardState& state) const {
  std::vector<Part>& parts = parts_of(memories_, state);
  if (parts.size() == 1) return apply_slots(group, x, parts.front().state);
  std::vector<ForwardState*> states;
  for (Part& part : parts) states.push_back(&part.state);
  std::vector<at::Tensor> outputs = apply_frozen(group, shared_input(parts, group, x, states));
  for (Part& part : parts) {
    const SlotFiller* filler = part.state.filler;
    if (filler == nullptr) continue;
    const at::Tensor rows = x.narrow(0, part.begin, part.count);
    std::vector<at::Tensor> views, own;
    for (const at::Tensor& output : outputs) views.push_back(output.narrow(0, part.begin, part.count));
    own = views;
    if (filler->splits()) {
      filler->add_experts(group, rows, own, part.state);
    } else {
      own = filler->forward(group, rows, part.state);  // the shared product of these rows was in vain
    }
    for (std::size_t i = 0; i < own.size(); ++i) {
      if (!own[i].is_same(views[i])) views[i].copy_(own[i]);
    }
  }
  return outputs;
}

}  // namespace skein
