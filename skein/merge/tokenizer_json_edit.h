// tokenizer.json with tokens added or left out, for merged vocabularies. The rest of the file stays as it is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/json.h"
#include "skein/merge/model_vocabulary.h"

namespace skein::merge {

// Leaves out tokens whose id is num_rows or more, with the merges that need them. False if there were none.
bool strip_tokens(Json& tokenizer, std::int64_t num_rows);

// A token that the output has and the tokenizer lacks, or has as an ordinary token only.
struct NewToken {
  std::string token;
  std::int64_t id = 0;
  bool is_added = false;
  const ModelVocabulary* owner = nullptr;  // null: of the recipe alone
};

// Adds them: ordinary ones to the model's vocabulary with their owner's merges or scores, added ones to added_tokens
// with their owner's flags. The ids continue the tokenizer's, in order. where: for messages. Fails where the kinds of
// model differ, or a kind cannot grow (WordPiece can, by its table; Unigram cannot leave holes).
Status add_tokens(const std::vector<NewToken>& new_tokens, const ModelVocabulary& target, Json& tokenizer,
                  const std::string& where);

// The entries of added_tokens for ids in `new_tokens`, as tokenizer_config.json's added_tokens_decoder has them, put
// into it if it has that table.
void extend_added_tokens_decoder(const std::vector<NewToken>& new_tokens, const Json& tokenizer, Json& config);

}  // namespace skein::merge
