#include "skein/infer/prompt.h"

#include <algorithm>

#include "skein/base/concat.h"
#include "skein/text/chat_template.h"

namespace skein {
namespace {

using Ids = std::vector<TokenId>;

constexpr EncodeOptions kPlain{.add_special = false, .parse_special = true};

void append(Ids& ids, const Ids& more) { ids.insert(ids.end(), more.begin(), more.end()); }

// The text with the tokenizer's own beginning; for an encoder also with its own end.
Ids encode_framed(std::string_view text, const Tokenizer& tokenizer, const BackboneConfig& config) {
  Ids ids = tokenizer.encode(text);
  const SpecialTokens& special = tokenizer.special();
  if (!config.is_encoder_decoder() && special.add_eos && special.eos && !ids.empty() && ids.back() == *special.eos)
    ids.pop_back();
  // A model predicts from some token: where there is no text, from the beginning of a sequence.
  if (ids.empty()) ids.push_back(special.bos ? *special.bos : end_token(tokenizer, config, false));
  return ids;
}

struct Prompt {
  Ids ids;
  bool was_cut = false;
};

[[noreturn]] void fail_frame(std::int64_t max_input) {
  throw Failure(
      {concat("inputs may have ", max_input, " tokens, which the text around them fills; give a larger --max-input"),
       ErrorKind::kUsage});
}

Prompt encode_source(const std::string& input, const Tokenizer& tokenizer, const BackboneConfig& config,
                     std::int64_t max_input) {
  Prompt prompt{encode_framed(input, tokenizer, config)};
  if (static_cast<std::int64_t>(prompt.ids.size()) <= max_input) return prompt;
  if (max_input < 1) fail_frame(max_input);
  const TokenId last = prompt.ids.back();
  prompt.ids.resize(static_cast<std::size_t>(max_input));
  if (tokenizer.special().add_eos && last == tokenizer.special().eos)
    prompt.ids.back() = last;  // the frame stays whole
  prompt.was_cut = true;
  return prompt;
}

Prompt encode_with_separator(const std::string& input, const Tokenizer& tokenizer, const BackboneConfig& config,
                             const PromptOptions& options) {
  Prompt prompt{encode_framed(concat(input, options.separator), tokenizer, config)};
  if (static_cast<std::int64_t>(prompt.ids.size()) <= options.max_input) return prompt;
  const Ids separator = tokenizer.encode(options.separator, kPlain);
  const std::int64_t room = options.max_input - static_cast<std::int64_t>(separator.size());
  if (room < 1) fail_frame(options.max_input);
  prompt.ids = encode_framed(input, tokenizer, config);
  prompt.ids.resize(std::min(prompt.ids.size(), static_cast<std::size_t>(room)));
  append(prompt.ids, separator);
  prompt.was_cut = true;
  return prompt;
}

Ids encode_chat(const std::vector<ChatMessage>& messages, const Tokenizer& tokenizer) {
  return tokenizer.encode(or_throw(render_chat(tokenizer, messages, true)),
                          kPlain);  // the template spells its own frame
}

// The last turn loses its end until the whole fits.
Prompt encode_chat_within(std::vector<ChatMessage> messages, const Tokenizer& tokenizer, std::int64_t max_input) {
  Prompt prompt{encode_chat(messages, tokenizer)};
  std::string& content = messages.back().content;
  while (static_cast<std::int64_t>(prompt.ids.size()) > max_input) {
    Ids kept = tokenizer.encode(content, kPlain);
    const auto excess = prompt.ids.size() - static_cast<std::size_t>(max_input);
    if (kept.empty()) fail_frame(max_input);
    kept.resize(kept.size() - std::min(excess, kept.size()));
    content = tokenizer.decode(kept, false);
    prompt.ids = encode_chat(messages, tokenizer);
    prompt.was_cut = true;
  }
  return prompt;
}

std::vector<ChatMessage> messages_of(const Example& example) {
  std::vector<ChatMessage> messages;
  for (const Turn& turn : example.messages) messages.push_back({turn.role, turn.content});
  if (messages.empty()) messages.push_back({"user", example.input});
  return messages;
}

Prompt encode_input(const Example& example, const Tokenizer& tokenizer, const BackboneConfig& config,
                    const PromptOptions& options) {
  if (options.chat) return encode_chat_within(messages_of(example), tokenizer, options.max_input);
  if (config.is_encoder_decoder()) return encode_source(example.input, tokenizer, config, options.max_input);
  return encode_with_separator(example.input, tokenizer, config, options);
}

Ids encode_target(const std::string& target, const Tokenizer& tokenizer, std::int64_t max_target, TokenId end) {
  Ids ids = tokenizer.encode(target, kPlain);
  if (static_cast<std::int64_t>(ids.size()) > max_target) ids.resize(static_cast<std::size_t>(max_target));
  ids.push_back(end);
  return ids;
}

// lm-eval's _encode_pair: the tokens of prompt + target that follow the prompt's own.
Ids encode_tail(const std::string& prompt, std::size_t num_prompt_tokens, const std::string& target,
                const Tokenizer& tokenizer, const BackboneConfig& config, std::int64_t max_target, TokenId end) {
  Ids ids = encode_framed(prompt + target, tokenizer, config);
  ids.erase(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(std::min(num_prompt_tokens, ids.size())));
  if (static_cast<std::int64_t>(ids.size()) > max_target) ids.resize(static_cast<std::size_t>(max_target));
  ids.push_back(end);
  return ids;
}

}  // namespace

TokenId end_token(const Tokenizer& tokenizer, const BackboneConfig& config, bool chat) {
  if (chat) {
    // What the template writes between an answer and whatever follows it.
    const std::string answer = "a";
    const std::string before = or_throw(render_chat(tokenizer, {{"user", "q"}}, true)) + answer;
    const std::string whole = or_throw(render_chat(tokenizer, {{"user", "q"}, {"assistant", answer}}, false));
    if (whole.size() > before.size() && whole.starts_with(before)) {
      const Ids after = tokenizer.encode(whole.substr(before.size()), kPlain);
      if (!after.empty()) return after.front();
    }
  }
  if (tokenizer.special().eos) return *tokenizer.special().eos;
  if (config.eos_tokens.empty()) {
    throw Failure({"neither the tokenizer nor the base names an end-of-sequence token; its files are incomplete"});
  }
  return static_cast<TokenId>(config.eos_tokens.front());
}

EncodedExample encode_example(const Example& example, const Tokenizer& tokenizer, const BackboneConfig& config,
                              const PromptOptions& given) {
  PromptOptions options = given;
  if (example.separator) options.separator = *example.separator;
  const TokenId end = end_token(tokenizer, config, options.chat);
  const bool joined = options.joined && !options.chat && !config.is_encoder_decoder();
  std::string text = concat(example.input, options.separator);
  std::string moved;  // white space from the prompt's end
  Prompt prompt;
  if (joined) {
    const std::size_t kept = text.find_last_not_of(" \t\n\v\f\r\x1c\x1d\x1e\x1f");  // str.rstrip(), of ASCII
    moved = text.substr(kept == std::string::npos ? 0 : kept + 1);
    text.resize(text.size() - moved.size());
    prompt.ids = encode_framed(text, tokenizer, config);
  }
  const bool fits = joined && static_cast<std::int64_t>(prompt.ids.size()) <= options.max_input;
  if (!fits) prompt = encode_input(example, tokenizer, config, options);  // a cut prompt has no text to join with
  const auto encode_one = [&](const std::string& target) {
    return fits ? encode_tail(text, prompt.ids.size(), moved + target, tokenizer, config, options.max_target, end)
                : encode_target(target, tokenizer, options.max_target, end);
  };
  EncodedExample encoded;
  encoded.target = encode_one(example.target);
  for (const std::string& choice : example.choices) encoded.choices.push_back(encode_one(choice));
  encoded.input = std::move(prompt.ids);
  encoded.input_was_cut = prompt.was_cut;
  return encoded;
}

std::vector<TokenId> encode_prompt(const std::string& text, const Tokenizer& tokenizer, const BackboneConfig& config,
                                   const PromptOptions& options) {
  if (options.chat) return encode_chat({{"user", text}}, tokenizer);
  if (config.is_encoder_decoder()) return encode_framed(text, tokenizer, config);
  return encode_framed(concat(text, options.separator), tokenizer, config);
}

}  // namespace skein
