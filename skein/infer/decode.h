// Text generation, token by token.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "skein/nn/backbone.h"
#include "skein/text/tokenizer.h"

namespace skein {

struct DecodeOptions {
  std::int64_t max_new_tokens = 128;
  double temperature = 0;  // 0: greedy
  double top_p = 1;        // sampled: smallest set of tokens with at least this probability
  std::uint64_t seed = 0;
  std::vector<std::string> stop;  // generation ends before the first of these texts
  bool ignore_end = false;        // benchmarks: go on past end of sequence
  // Rows of a prompt in one pass, about: a long prompt takes the room of a piece beside its keys and values.
  std::int64_t rows_at_once = 256;
  // For the router (LoadedModel::hint_of): one for each prompt, or none at all.
  std::vector<std::shared_ptr<const SequenceHint>> hints;
};

struct Decoded {
  std::vector<TokenId> tokens;  // without the end token
  std::string text;             // cut at a stop text
  bool ended = false;           // by an end token or a stop text, not by length
};

// One prompt of token ids (encoder-decoder: the source). on_text: called with each new piece of complete UTF-8.
Decoded decode(const Backbone& backbone, const Tokenizer& tokenizer, const std::vector<TokenId>& prompt,
               const DecodeOptions& options, ForwardState& state,
               const std::function<void(std::string_view)>& on_text = nullptr);
// Many prompts as one batch; results in order, the same as one at a time.
std::vector<Decoded> decode_batch(const Backbone& backbone, const Tokenizer& tokenizer,
                                  const std::vector<std::vector<TokenId>>& prompts, const DecodeOptions& options,
                                  ForwardState& state);

// A decoder's input with a cache: reads all into the cache but the last piece of at most rows_at_once + 1 tokens (never
// one alone: its bits would be another kernel's) and leaves that in input.tokens. Where the filler must see a whole
// prompt, nothing is read.
void read_ahead(const Backbone& backbone, SequenceInput& input, std::int64_t rows_at_once, ForwardState& state);

}  // namespace skein
