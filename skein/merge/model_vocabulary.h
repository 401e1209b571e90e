// The vocabulary of one input of a merge: which token has which row of its embedding.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/io/json.h"

namespace skein::merge {

// Every file of a Hugging Face tokenizer, chat templates included.
inline constexpr const char* kTokenizerFiles[] = {"tokenizer.json",
                                                  "tokenizer_config.json",
                                                  "special_tokens_map.json",
                                                  "tokenizer.model",
                                                  "spiece.model",
                                                  "added_tokens.json",
                                                  "vocab.json",
                                                  "merges.txt",
                                                  "chat_template.jinja",
                                                  "chat_template.json"};

struct ModelVocabulary {
  std::string model;                // as the recipe names it, for messages
  std::string folder;               // with the tokenizer's files
  std::int64_t num_rows = 0;        // of the model's embedding; may exceed or fall short of the tokens
  std::vector<std::string> tokens;  // by id, below num_rows; empty: no token has that id
  std::unordered_map<std::string, std::int64_t> ids;  // of `tokens`
  std::vector<bool> is_added;                         // by id: matched in the text before the model sees it
  std::int64_t num_beyond = 0;                        // tokens whose id has no row, left out above
  Json tokenizer;                                     // tokenizer.json; null where there is only a SentencePiece model

  std::int64_t id(const std::string& token) const;  // -1: not in it
};

// Reads tokenizer.json, or tokenizer.model / spiece.model. A folder without any of them is an error that says so.
Result<ModelVocabulary> read_model_vocabulary(Env& env, const std::string& folder, const std::string& model,
                                              std::int64_t num_rows);
// Whether the folder has a tokenizer at all.
bool has_tokenizer(Env& env, const std::string& folder);

}  // namespace skein::merge
