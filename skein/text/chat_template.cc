#include "skein/text/chat_template.h"

#include "skein/base/concat.h"
#include "skein/text/jinja/template.h"

namespace skein {
namespace {

using jinja::Value;

// What transformers' apply_chat_template passes: the messages, nothing for tools and documents, and the special tokens.
Value::Dict variables_for(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages,
                          bool add_generation_prompt) {
  Value::List list;
  for (const ChatMessage& message : messages) {
    list.emplace_back(Value::Dict{{"role", message.role}, {"content", message.content}});
  }
  Value::Dict variables = {{"messages", Value(std::move(list))},
                           {"add_generation_prompt", Value(add_generation_prompt)},
                           {"tools", Value(Value::None{})},
                           {"documents", Value(Value::None{})}};
  const SpecialTokens& special = tokenizer.special();
  const auto add = [&](const char* name, const std::optional<TokenId>& id) {
    if (id) variables.emplace_back(name, Value(std::string(tokenizer.token(*id))));
  };
  add("bos_token", special.bos);
  add("eos_token", special.eos);
  add("pad_token", special.pad);
  add("unk_token", special.unk);
  return variables;
}

}  // namespace

Result<std::string> render_chat(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages,
                                bool add_generation_prompt) {
  const auto& source = tokenizer.chat_template();
  if (!source) {
    return Error{
        "the model has no chat template; it is a base model: prompt it without --chat, or use its instruction-tuned "
        "sibling"};
  }
  const auto parsed = jinja::Template::parse(*source);
  if (!parsed.ok()) return Error{concat("the model's chat template: ", parsed.error().message)};
  auto text = parsed->render(variables_for(tokenizer, messages, add_generation_prompt));
  if (!text.ok()) return Error{concat("the model's chat template: ", text.error().message)};
  return text;
}

}  // namespace skein
