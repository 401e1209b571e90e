// What tokenizer_config.json (and special_tokens_map.json) say beside the vocabulary.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/json.h"
#include "skein/text/added_tokens.h"
#include "skein/text/tokenizer.h"

namespace skein {

struct TokenizerConfig {
  std::string tokenizer_class;  // "LlamaTokenizer"; may be empty
  std::optional<std::string> bos, eos, pad, unk;
  std::optional<bool> add_bos, add_eos;
  std::optional<std::int64_t> extra_ids;  // T5's sentinels
  std::vector<AddedToken> added;          // "added_tokens_decoder"
  std::optional<std::string> chat_template;
};

// text: the file's content, or empty for none.
Result<TokenizerConfig> parse_tokenizer_config(const std::string& text, const std::string& where);

// One entry of added_tokens: content and flags.
Result<AddedToken> parse_added_token(const Json& json, std::int64_t id, const std::string& where);

}  // namespace skein
