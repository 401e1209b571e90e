#include "skein/merge/model_vocabulary.h"

#include <memory>
#include <utility>

#include "skein/base/concat.h"
#include "skein/text/tokenizer.h"
#include "skein/text/vocabulary.h"  // kMaxVocabulary

namespace skein::merge {
namespace {

const Json* member(const Json& json, const std::string& key) {
  const auto found = json.is_object() ? json.find(key) : json.end();
  return found == json.end() ? nullptr : &*found;
}

Status place(std::int64_t id, const std::string& token, bool is_added, const std::string& where,
             ModelVocabulary& vocabulary) {
  if (id < 0 || id >= kMaxVocabulary) {
    return Error{concat(where, ": the token \"", printable(token), "\" has the id ", id, "; 0 to ", kMaxVocabulary - 1,
                        " are allowed")};
  }
  if (id >= vocabulary.num_rows) {
    ++vocabulary.num_beyond;
    return {};
  }
  if (id >= static_cast<std::int64_t>(vocabulary.tokens.size())) {
    vocabulary.tokens.resize(id + 1);
    vocabulary.is_added.resize(id + 1, false);
  }
  std::string& there = vocabulary.tokens[id];
  if (!there.empty() && there != token) {
    return Error{
        concat(where, ": the id ", id, " belongs to both \"", printable(there), "\" and \"", printable(token), "\"")};
  }
  there = token;
  if (is_added) vocabulary.is_added[id] = true;
  vocabulary.ids.emplace(token, id);
  return {};
}

Status read_json_tokens(const std::string& where, ModelVocabulary& vocabulary) {
  const Json* model = member(vocabulary.tokenizer, "model");
  const Json* vocab = model == nullptr ? nullptr : member(*model, "vocab");
  if (vocab == nullptr || !vocab->is_structured()) return Error{concat(where, ": has no table or list model.vocab")};
  if (vocab->is_object()) {  // BPE, WordPiece, WordLevel
    vocabulary.ids.reserve(vocab->size());
    for (const auto& [token, id] : vocab->items()) {
      if (!id.is_number_integer())
        return Error{concat(where, ": the id of \"", printable(token), "\" is not an integer")};
      SKEIN_TRY(place(id.get<std::int64_t>(), token, false, where, vocabulary));
    }
  } else {  // Unigram: a list of [token, score]
    std::int64_t id = 0;
    for (const Json& entry : *vocab) {
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
        return Error{concat(where, ": token ", id, " of model.vocab is ", printable(entry.dump()),
                            "; a token with its score was expected")};
      }
      SKEIN_TRY(place(id++, entry[0].get<std::string>(), false, where, vocabulary));
    }
  }
  if (const Json* added = member(vocabulary.tokenizer, "added_tokens"); added != nullptr) {
    if (!added->is_array() && !added->is_null()) return Error{concat(where, ": added_tokens is not a list")};
    for (const Json& entry : *added) {
      if (!entry.is_object()) return Error{concat(where, ": added_tokens holds ", printable(entry.dump()))};
      SKEIN_ASSIGN(const std::int64_t id, json_integer(entry, "id", std::nullopt, where));
      SKEIN_ASSIGN(const std::string content, json_string(entry, "content", std::nullopt, where));
      SKEIN_TRY(place(id, content, true, where, vocabulary));
    }
  }
  return {};
}

constexpr const char* kSentencePieceNames[] = {"tokenizer.model", "spiece.model"};

}  // namespace

std::int64_t ModelVocabulary::id(const std::string& token) const {
  const auto found = ids.find(token);
  return found == ids.end() ? -1 : found->second;
}

bool has_tokenizer(Env& env, const std::string& folder) {
  if (env.exists(join_path(folder, "tokenizer.json"))) return true;
  for (const char* name : kSentencePieceNames) {
    if (env.exists(join_path(folder, name))) return true;
  }
  return false;
}

Result<ModelVocabulary> read_model_vocabulary(Env& env, const std::string& folder, const std::string& model,
                                              std::int64_t num_rows) {
  ModelVocabulary vocabulary{.model = model, .folder = folder, .num_rows = num_rows};
  const std::string path = join_path(folder, "tokenizer.json");
  if (env.exists(path)) {
    SKEIN_ASSIGN(vocabulary.tokenizer, read_json_file(env, path));
    SKEIN_TRY(read_json_tokens(path, vocabulary));
    return vocabulary;
  }
  if (!has_tokenizer(env, folder)) {
    return Error{
        concat(folder, ": has no tokenizer.json, tokenizer.model or spiece.model; its vocabulary cannot be merged")};
  }
  SKEIN_ASSIGN(const std::unique_ptr<Tokenizer> tokenizer, load_tokenizer(env, folder));
  for (TokenId id = 0; id < tokenizer->vocabulary_size(); ++id) {
    const std::string_view token = tokenizer->token(id);
    if (!token.empty()) SKEIN_TRY(place(id, std::string(token), tokenizer->is_special(id), folder, vocabulary));
  }
  return vocabulary;
}

}  // namespace skein::merge
