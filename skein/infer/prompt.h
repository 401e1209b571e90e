// From an example to token ids: how a base reads input and target. (Conventions: docs/formats/data.md.)
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "skein/spec/backbone_config.h"
#include "skein/spec/example.h"
#include "skein/text/tokenizer.h"

namespace skein {

class SequenceHint;

struct PromptOptions {
  std::string separator = "\n";   // decoder-only: between input and target
  bool chat = false;              // wrap the input in the model's chat template instead
  std::int64_t max_input = 512;   // tokens, special ones and separator included; longer inputs lose their end
  std::int64_t max_target = 512;  // tokens, end of sequence not counted
  // lm-eval's way (decoder-only): prompt and choice are tokenised as one text and cut where the prompt's own tokens
  // end; white space at the prompt's end go to the choice. Default: prompt and target apart.
  bool joined = false;
};

struct EncodedExample {
  std::vector<TokenId> input;   // decoder-only: special tokens, input, separator; encoder-decoder: the encoder's input
  std::vector<TokenId> target;  // with end of sequence
  std::vector<std::vector<TokenId>> choices;  // each with end of sequence; empty if the example has none
  bool input_was_cut = false;
  std::shared_ptr<const SequenceHint> hint;  // for the router (LoadedModel::hint_of); null: none
};

// Throws Failure: no end token, a chat template that is missing or cannot be rendered, max_input too small for the
// frame around the input.
EncodedExample encode_example(const Example& example, const Tokenizer& tokenizer, const BackboneConfig& config,
                              const PromptOptions& options);
// A prompt alone, never cut.
std::vector<TokenId> encode_prompt(const std::string& text, const Tokenizer& tokenizer, const BackboneConfig& config,
                                   const PromptOptions& options);
// What ends a target: the tokenizer's end of sequence (else the base's), in chat what the template puts after an
// answer.
TokenId end_token(const Tokenizer& tokenizer, const BackboneConfig& config, bool chat);

}  // namespace skein
