// What a routed model chose, token by token, as plain data: written as JSON lines, printed as tables, drawn as a page.
// Format of the lines: docs/formats/trace.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "skein/io/json.h"

namespace skein {

struct TraceToken {
  std::int64_t position = 0;  // within its stream
  std::int32_t id = 0;
  std::string text;        // may be part of a UTF-8 character
  bool in_source = false;  // encoder-decoder: a token that the encoder reads
  bool in_answer = false;  // generated, not given
};

struct TraceSlot {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  int layer = 0;
  std::string kind;  // "q_proj"
  bool in_encoder = false;
  bool reads_source = false;  // its rows are the source's tokens (the encoder's linears; k and v of cross-attention)
};

struct Trace {
  std::string model;  // for titles
  std::string router;
  std::vector<std::string> experts;
  std::vector<TraceSlot> slots;  // those with an expert
  std::vector<TraceToken> tokens;
  int top_k = 0;
  std::vector<std::int32_t> ids;  // (slots, tokens, k) expert_idx, best first; -1: the slot does not read this token
  std::vector<float> weights;     // (slots, tokens, k)

  std::size_t at(std::size_t slot, std::size_t token) const { return (slot * tokens.size() + token) * top_k; }
};

// Mean weight of each expert over the slots that read the token: (tokens, E), rows sum to 1 (up to the router's eps).
std::vector<std::vector<double>> token_shares(const Trace& trace);
// Mean weight of each expert over all tokens of one group of slots, or of all with the empty name: (E).
std::vector<double> group_shares(const Trace& trace, const std::string& group);
// What a slot is grouped by, whatever its layer: its kind, with the stream in front for encoder-decoders.
std::string slot_group(const TraceSlot& slot);
// Groups in the order of their first slot.
std::vector<std::string> slot_groups(const Trace& trace);

// One line per token.
std::vector<Json> trace_lines(const Trace& trace);
// Tables for the terminal: the two leading experts of each token, shares by expert and group of modules.
std::string trace_text(const Trace& trace, bool styled);

}  // namespace skein
