#include "skein/serve/pass.h"

#include <map>
#include <optional>

#include <ATen/ATen.h>

#include "skein/serve/mixed_slots.h"

namespace skein {
namespace {

using Records = std::map<const SlotFiller*, std::shared_ptr<SlotMemory>>;

const SlotFiller* filler_of(const RowsOfSequence& rows) { return rows.sequence->served().model.filler.get(); }

std::int64_t num_source_rows(const RowsOfSequence& rows) {
  return static_cast<std::int64_t>(rows.sequence->request().prompt.size());
}

// One for every filler that a sequence wants to see the choices of.
Records records_for(const Backbone& backbone, const PassRows& rows) {
  Records records;
  for (const RowsOfSequence& of : rows) {
    if (!of.sequence->request().trace || filler_of(of) == nullptr) continue;
    std::shared_ptr<SlotMemory>& record = records[filler_of(of)];
    if (record != nullptr) continue;
    record = std::make_shared<RoutingRecord>(static_cast<int>(backbone.slots().size()),
                                             static_cast<int>(of.sequence->served().model.expert_names.size()));
  }
  return records;
}

// rows: those of one filler side by side.
std::vector<PassResult::Traced> traces_of(const Backbone& backbone, const PassRows& rows, const PassResult& result,
                                          const Records& records) {
  std::vector<PassResult::Traced> traced(rows.size());
  std::map<const SlotFiller*, PassResult::Traced> begins;  // where a filler's rows begin in the batch
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto record = records.find(filler_of(rows[i]));
    if (record == records.end()) continue;
    PassResult::Traced& begin = begins[filler_of(rows[i])];
    if (begin.trace == nullptr) {
      begin = {std::make_shared<const PassTrace>(static_cast<const RoutingRecord&>(*record->second), backbone.slots()),
               result.first_row[i], -1};
    }
    if (begin.first_source_row < 0) begin.first_source_row = result.first_source_row[i];
    if (!rows[i].sequence->request().trace) continue;
    traced[i] = {begin.trace, result.first_row[i] - begin.first_row,
                 result.first_source_row[i] - begin.first_source_row};
  }
  return traced;
}

}  // namespace

PassResult run_pass(const Backbone& backbone, const PassRows& rows) {
  const bool encodes = backbone.config().is_encoder_decoder();
  PassResult result;
  std::vector<SequenceInput> inputs, sources;
  std::int64_t next_row = 0, next_source_row = 0;
  bool all_plain = true;
  for (const RowsOfSequence& of : rows) {
    Sequence& sequence = *of.sequence;
    const auto first = sequence.tokens().begin() + of.begin;
    SequenceInput input{.tokens = {first, first + of.count},
                        .cache = sequence.cache.get(),
                        .hint = sequence.hint(),
                        .filler = filler_of(of),
                        .rows_apart = of.begin >= sequence.num_prompt_tokens()};
    all_plain = all_plain && input.filler == nullptr;
    result.first_row.push_back(next_row);
    next_row += of.count;
    result.first_source_row.push_back(-1);
    if (encodes && of.begin == 0) {
      input.source = static_cast<std::int64_t>(sources.size());
      sources.push_back({.tokens = sequence.request().prompt, .hint = input.hint, .filler = input.filler});
      result.first_source_row.back() = next_source_row;
      next_source_row += num_source_rows(of);
    }
    inputs.push_back(std::move(input));
  }
  const Records records = records_for(backbone, rows);
  const MixedSlots slots(records);
  ForwardState state{all_plain ? nullptr : &slots, nullptr};
  std::optional<EncodedSource> source;
  if (!sources.empty()) {
    source = backbone.encode(pack(sources, backbone.compute().device), state);
    result.source_hidden = source->hidden;
  }
  result.hidden = backbone.forward(pack(inputs, backbone.compute().device), source ? &*source : nullptr, state);
  result.traced = traces_of(backbone, rows, result, records);
  return result;
}

}  // namespace skein
