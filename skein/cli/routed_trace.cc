#include "skein/cli/routed_trace.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "skein/base/concat.h"

namespace skein {
namespace {

// The text that each token adds after the one before it (a SentencePiece token alone would lose its leading blank).
std::string added_text(const Tokenizer& tokenizer, const std::vector<TokenId>& ids, std::size_t i) {
  if (i == 0) return tokenizer.decode(std::span(ids).first(1), false);
  const std::string before = tokenizer.decode(std::span(ids).subspan(i - 1, 1), false);
  return tokenizer.decode(std::span(ids).subspan(i - 1, 2), false).substr(before.size());
}

void add_tokens(Trace& trace, const Tokenizer& tokenizer, const std::vector<TokenId>& ids, std::size_t answer_begin,
                bool in_source) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    trace.tokens.push_back({.position = static_cast<std::int64_t>(i),
                            .id = ids[i],
                            .text = added_text(tokenizer, ids, i),
                            .in_source = in_source,
                            .in_answer = !in_source && i >= answer_begin});
  }
}

// Runs the tokens and returns the record.
std::shared_ptr<RoutingRecord> record_pass(const LoadedModel& model, const std::vector<TokenId>& source,
                                           const std::vector<TokenId>& stream, std::size_t answer_begin,
                                           const std::shared_ptr<const SequenceHint>& hint) {
  const Backbone& backbone = *model.backbone;
  ForwardState state = model.new_state();
  auto record = std::make_shared<RoutingRecord>(static_cast<int>(backbone.slots().size()),
                                                static_cast<int>(model.expert_names.size()));
  state.memory = record;
  const c10::Device device = backbone.compute().device;
  EncodedSource encoded;
  if (!source.empty()) encoded = backbone.encode(pack({{.tokens = source, .hint = hint}}, device), state);
  // The answer follows as a branch, so that what the prompt decides for a sequence is decided without it.
  SequenceInput sequence{.tokens = {stream.begin(), stream.begin() + static_cast<std::ptrdiff_t>(answer_begin)},
                         .source = source.empty() ? -1 : 0,
                         .hint = hint};
  if (answer_begin < stream.size() && answer_begin > 0) {
    sequence.branches.emplace_back(stream.begin() + static_cast<std::ptrdiff_t>(answer_begin), stream.end());
  }
  backbone.forward(pack({sequence}, device), source.empty() ? nullptr : &encoded, state);
  return record;
}

bool reads_source(const SlotName& slot) {
  return slot.in_encoder ||
         (slot.module.find("EncDecAttention") != std::string::npos && (slot.kind == "k" || slot.kind == "v"));
}

// (tokens, k) of one slot, filled from the calls of the record in order.
void fill_slot(Trace& trace, std::size_t slot, std::size_t first_token, const std::vector<Mixture>& calls) {
  std::size_t token = first_token;
  for (const Mixture& mixture : calls) {
    const at::Tensor ids = mixture.ids.to(at::kCPU, at::kInt).contiguous();            // (N, k)
    const at::Tensor weights = mixture.weights.to(at::kCPU, at::kFloat).contiguous();  // (N, k)
    for (std::int64_t row = 0; row < ids.size(0); ++row, ++token) {
      for (std::int64_t i = 0; i < ids.size(1); ++i) {
        trace.ids[trace.at(slot, token) + i] = ids.data_ptr<int>()[row * ids.size(1) + i];
        trace.weights[trace.at(slot, token) + i] = weights.data_ptr<float>()[row * ids.size(1) + i];
      }
    }
  }
}

}  // namespace

Trace trace_tokens(const LoadedModel& model, const std::vector<TokenId>& prompt, const std::vector<TokenId>& answer,
                   const std::string& router, const std::shared_ptr<const SequenceHint>& hint) {
  if (model.expert_names.empty() || model.filler == nullptr) {
    throw Failure({"there is nothing to trace without experts; give --library or --mixture", ErrorKind::kUsage});
  }
  const c10::InferenceMode inference;
  const BackboneConfig& config = model.base.config;
  Trace trace{.model = base_name(model.base.path), .router = router, .experts = model.expert_names};
  std::vector<TokenId> source, stream = prompt;
  if (config.is_encoder_decoder()) {
    source = prompt;
    stream = {static_cast<TokenId>(config.decoder_start_token)};
  }
  const std::size_t answer_begin = stream.size();
  stream.insert(stream.end(), answer.begin(), answer.end());
  if (!config.is_encoder_decoder() && static_cast<std::int64_t>(stream.size()) > config.max_positions) {
    throw Failure({concat("there are ", stream.size(), " tokens to trace; the base reads ", config.max_positions)});
  }
  add_tokens(trace, *model.tokenizer, source, 0, true);
  add_tokens(trace, *model.tokenizer, stream, answer_begin, false);

  const auto record = record_pass(model, source, stream, answer_begin, hint);
  std::vector<int> slot_idxs;
  for (std::size_t s = 0; s < record->mixtures.size(); ++s) {
    if (record->mixtures[s].empty()) continue;
    const SlotName& slot = model.backbone->slots()[s];
    slot_idxs.push_back(static_cast<int>(s));
    trace.slots.push_back({.module = slot.module,
                           .layer = slot.layer,
                           .kind = slot.kind,
                           .in_encoder = slot.in_encoder,
                           .reads_source = reads_source(slot)});
    for (const Mixture& mixture : record->mixtures[s])
      trace.top_k = std::max(trace.top_k, static_cast<int>(mixture.ids.size(1)));
  }
  trace.ids.assign(trace.slots.size() * trace.tokens.size() * trace.top_k, -1);
  trace.weights.assign(trace.ids.size(), 0);
  for (std::size_t s = 0; s < slot_idxs.size(); ++s) {
    fill_slot(trace, s, trace.slots[s].reads_source ? 0 : source.size(), record->mixtures[slot_idxs[s]]);
  }
  return trace;
}

}  // namespace skein
