// From an example to token ids: how a base reads input and target. (Conventions: docs/formats/data.md.)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "skein/spec/backbone_config.h"
#include "skein/spec/example.h"
#include "skein/text/tokenizer.h"

namespace skein {

struct PromptOptions {
  std::string separator = "\n";     // decoder-only: between input and target
  bool chat = false;                // wrap the input in the model's chat template instead
  std::int64_t max_input = 512;     // tokens; longer inputs lose their end
  std::int64_t max_target = 512;    // tokens, end of sequence not counted
};

struct EncodedExample {
  std::vector<TokenId> input;    // decoder-only: special tokens, input, separator; encoder-decoder: the encoder's input
  std::vector<TokenId> target;   // with end of sequence
  std::vector<std::vector<TokenId>> choices;  // each with end of sequence; empty if the example has none
  bool input_was_cut = false;
};

// Prompt and target are tokenised apart. end_token: what ends a target (the base's eos).
EncodedExample encode_example(const Example& example, const Tokenizer& tokenizer, const BackboneConfig& config,
                              const PromptOptions& options);
std::vector<TokenId> encode_prompt(const std::string& text, const Tokenizer& tokenizer, const BackboneConfig& config,
                                   const PromptOptions& options);

}  // namespace skein
