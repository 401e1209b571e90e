// A conversation to the model's own prompt text.
#pragma once

#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/text/tokenizer.h"

namespace skein {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

// Renders tokenizer.chat_template(); add_generation_prompt: ends with the opening of the assistant's turn. The text
// holds special tokens spelled out: encode it with parse_special and without add_special. A model without a template,
// or with one that cannot be rendered, is an error that says why.
Result<std::string> render_chat(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages,
                                bool add_generation_prompt);

}  // namespace skein
