#include "skein/text/tokenizer_config.h"

#include <algorithm>
#include <charconv>

#include "skein/base/concat.h"
#include "skein/text/vocabulary.h"

namespace skein {
namespace {

// A special token is a string, or an object with "content".
Result<std::optional<std::string>> special_token(const Json& json, const std::string& key, const std::string& where) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return std::optional<std::string>();
  if (found->is_string()) return std::optional<std::string>(found->get<std::string>());
  SKEIN_ASSIGN(std::string content, json_string(*found, "content", std::nullopt, concat(where, ": ", key)));
  return std::optional<std::string>(std::move(content));
}

Result<std::optional<bool>> flag(const Json& json, const std::string& key, const std::string& where) {
  if (!json.contains(key) || json[key].is_null()) return std::optional<bool>();
  SKEIN_ASSIGN(const bool value, json_bool(json, key, std::nullopt, where));
  return std::optional<bool>(value);
}

// A template, or a list of named ones of which "default" is for conversations.
Result<std::optional<std::string>> chat_template(const Json& json, const std::string& where) {
  const auto found = json.find("chat_template");
  if (found == json.end() || found->is_null()) return std::optional<std::string>();
  if (found->is_string()) return std::optional<std::string>(found->get<std::string>());
  if (found->is_array()) {
    for (const Json& named : *found) {
      SKEIN_ASSIGN(const std::string name, json_string(named, "name", std::nullopt, where));
      if (name != "default") continue;
      SKEIN_ASSIGN(std::string source, json_string(named, "template", std::nullopt, where));
      return std::optional<std::string>(std::move(source));
    }
    return std::optional<std::string>();
  }
  return Error{concat(where, ": \"chat_template\" is neither a string nor a list of named templates")};
}

Result<std::vector<AddedToken>> added_tokens(const Json& json, const std::string& where) {
  std::vector<AddedToken> added;
  const auto found = json.find("added_tokens_decoder");
  if (found == json.end() || found->is_null()) return added;
  if (!found->is_object()) return Error{concat(where, ": \"added_tokens_decoder\" is not an object")};
  for (const auto& [key, value] : found->items()) {
    std::int64_t id = -1;
    const auto [end, fault] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (fault != std::errc() || end != key.data() + key.size()) {
      return Error{concat(where, ": \"", printable(key), "\" in added_tokens_decoder is not an id")};
    }
    SKEIN_ASSIGN(AddedToken token, parse_added_token(value, id, where));
    added.push_back(std::move(token));
  }
  std::sort(added.begin(), added.end(), [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return added;
}

}  // namespace

Result<AddedToken> parse_added_token(const Json& json, std::int64_t id, const std::string& where) {
  if (id < 0 || id >= kMaxVocabulary) {
    return Error{concat(where, ": an added token has the id ", id, "; 0 to ", kMaxVocabulary - 1, " are allowed")};
  }
  AddedToken token{.id = static_cast<TokenId>(id)};
  SKEIN_ASSIGN(token.content, json_string(json, "content", std::nullopt, where));
  SKEIN_ASSIGN(token.special, json_bool(json, "special", false, where));
  SKEIN_ASSIGN(token.normalized, json_bool(json, "normalized", !token.special, where));
  SKEIN_ASSIGN(token.single_word, json_bool(json, "single_word", false, where));
  SKEIN_ASSIGN(token.lstrip, json_bool(json, "lstrip", false, where));
  SKEIN_ASSIGN(token.rstrip, json_bool(json, "rstrip", false, where));
  return token;
}

Result<TokenizerConfig> parse_tokenizer_config(const std::string& text, const std::string& where) {
  TokenizerConfig config;
  if (text.empty()) return config;
  SKEIN_ASSIGN(const Json json, parse_json(text, where));
  if (!json.is_object()) return Error{concat(where, ": an object was expected")};
  SKEIN_ASSIGN(config.tokenizer_class, json_string(json, "tokenizer_class", "", where));
  SKEIN_ASSIGN(config.bos, special_token(json, "bos_token", where));
  SKEIN_ASSIGN(config.eos, special_token(json, "eos_token", where));
  SKEIN_ASSIGN(config.pad, special_token(json, "pad_token", where));
  SKEIN_ASSIGN(config.unk, special_token(json, "unk_token", where));
  SKEIN_ASSIGN(config.add_bos, flag(json, "add_bos_token", where));
  SKEIN_ASSIGN(config.add_eos, flag(json, "add_eos_token", where));
  if (json.contains("extra_ids")) {
    SKEIN_ASSIGN(config.extra_ids, json_integer(json, "extra_ids", 0, where));
  }
  SKEIN_ASSIGN(config.added, added_tokens(json, where));
  SKEIN_ASSIGN(config.chat_template, chat_template(json, where));
  return config;
}

}  // namespace skein
