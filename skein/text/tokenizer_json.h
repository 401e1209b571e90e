// The parts of a tokenizer.json that both its reader and the GGUF export want.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/json.h"
#include "skein/text/added_tokens.h"

namespace skein {

using BpeMerges = std::vector<std::pair<std::string, std::string>>;

// "model.vocab" as tokens in the order of their ids; a hole is an empty text.
Result<std::vector<std::string>> bpe_tokens(const Json& model, const std::string& where);
Result<BpeMerges> bpe_merges(const Json& model, const std::string& where);
// "added_tokens": put at their ids in `tokens`, and listed.
Status read_added_tokens(const Json& json, const std::string& where, std::vector<std::string>& tokens,
                         std::vector<AddedToken>& added);

}  // namespace skein
