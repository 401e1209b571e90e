#include "skein/text/gguf_vocabulary.h"

#include <algorithm>

#include "skein/base/concat.h"
#include "skein/text/pre_tokenizer.h"
#include "skein/text/special_tokens.h"
#include "skein/text/vocabulary.h"

namespace skein {
namespace {

// The array under `key` as a vector of T; integers and floats of either kind are taken.
template <typename T>
Result<std::vector<T>> numbers(const GgufFile& file, const std::string& key) {
  const GgufValue* value = file.find(key);
  if (value == nullptr)
    return Error{concat(file.path(), ": \"", key, "\" is missing; the file has no whole tokenizer")};
  const auto convert = [](const auto& from) { return std::vector<T>(from.begin(), from.end()); };
  if (const auto* array = std::get_if<std::vector<std::uint64_t>>(value)) return convert(*array);
  if (const auto* array = std::get_if<std::vector<std::int64_t>>(value)) return convert(*array);
  if (const auto* array = std::get_if<std::vector<double>>(value)) return convert(*array);
  return Error{concat(file.path(), ": \"", key, "\" is not an array of numbers")};
}

Result<const std::vector<std::string_view>*> strings(const GgufFile& file, const std::string& key) {
  const GgufValue* value = file.find(key);
  if (value == nullptr)
    return Error{concat(file.path(), ": \"", key, "\" is missing; the file has no whole tokenizer")};
  if (const auto* array = std::get_if<std::vector<std::string_view>>(value)) return array;
  return Error{concat(file.path(), ": \"", key, "\" is not an array of strings")};
}

Result<bool> flag(const GgufFile& file, const std::string& key, bool otherwise) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return otherwise;
  if (const bool* found = std::get_if<bool>(value)) return *found;
  return Error{concat(file.path(), ": \"", key, "\" is not true or false")};
}

Result<std::optional<TokenId>> token_id(const GgufFile& file, const std::string& key, std::size_t num_tokens) {
  const std::string full = concat("tokenizer.ggml.", key, "_token_id");
  if (file.find(full) == nullptr) return std::optional<TokenId>();
  SKEIN_ASSIGN(const std::int64_t id, file.integer(full));
  if (id == 0xFFFFFFFF || id == -1) return std::optional<TokenId>();  // "none", as some converters write it
  if (id < 0 || id >= static_cast<std::int64_t>(num_tokens)) {
    return Error{concat(file.path(), ": \"", full, "\" is ", id, "; the vocabulary has ", num_tokens, " tokens")};
  }
  return std::optional<TokenId>(static_cast<TokenId>(id));
}

Status read_tokens(const GgufFile& file, GgufVocabulary& vocabulary) {
  SKEIN_ASSIGN(const auto* tokens, strings(file, "tokenizer.ggml.tokens"));
  if (tokens->empty() || static_cast<std::int64_t>(tokens->size()) > kMaxVocabulary) {
    return Error{
        concat(file.path(), ": the vocabulary has ", tokens->size(), " tokens; 1 to ", kMaxVocabulary, " are allowed")};
  }
  vocabulary.tokens.assign(tokens->begin(), tokens->end());
  vocabulary.types.assign(tokens->size(), GgufTokenType::kNormal);
  if (file.find("tokenizer.ggml.token_type") == nullptr) return {};
  SKEIN_ASSIGN(const auto types, numbers<std::int64_t>(file, "tokenizer.ggml.token_type"));
  if (types.size() != tokens->size()) {
    return Error{
        concat(file.path(), ": ", tokens->size(), " tokens but ", types.size(), " token types; the file is damaged")};
  }
  for (std::size_t id = 0; id < types.size(); ++id) {
    if (types[id] < 0 || types[id] > 6) {
      return Error{concat(file.path(), ": token ", id, " has the type ", types[id], "; 0 to 6 are known")};
    }
    if (types[id] != 0) vocabulary.types[id] = static_cast<GgufTokenType>(types[id]);
  }
  return {};
}

Status read_merges(const GgufFile& file, GgufVocabulary& vocabulary) {
  SKEIN_ASSIGN(const std::string name, file.text("tokenizer.ggml.pre", "default"));
  vocabulary.rule = find_pre_tokenizer_rule(name);
  if (vocabulary.rule == nullptr) {
    return Error{concat(file.path(), ": the pre-tokenizer \"", printable(name), "\" is not one Skein knows (",
                        known_pre_tokenizer_names(), ")")};
  }
  SKEIN_ASSIGN(const auto* merges, strings(file, "tokenizer.ggml.merges"));
  vocabulary.merges.reserve(merges->size());
  for (std::size_t i = 0; i < merges->size(); ++i) {
    const std::string_view merge = (*merges)[i];
    const std::size_t space = merge.find(' ', 1);  // a token may be a space, but does not begin with one and go on
    if (space == std::string_view::npos || space + 1 == merge.size()) {
      return Error{concat(file.path(), ": merge ", i, " is \"", printable(merge),
                          "\"; two tokens with a space between were expected")};
    }
    vocabulary.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  return {};
}

Status read_scores(const GgufFile& file, GgufVocabulary& vocabulary) {
  SKEIN_ASSIGN(vocabulary.scores, numbers<float>(file, "tokenizer.ggml.scores"));
  if (vocabulary.scores.size() != vocabulary.tokens.size()) {
    return Error{concat(file.path(), ": ", vocabulary.tokens.size(), " tokens but ", vocabulary.scores.size(),
                        " scores; the file is damaged")};
  }
  SKEIN_ASSIGN(vocabulary.add_space_prefix, flag(file, "tokenizer.ggml.add_space_prefix", true));
  return {};
}

Status read_special(const GgufFile& file, GgufVocabulary& vocabulary) {
  SpecialTokens& special = vocabulary.special;
  const std::size_t num_tokens = vocabulary.tokens.size();
  SKEIN_ASSIGN(special.bos, token_id(file, "bos", num_tokens));
  SKEIN_ASSIGN(special.eos, token_id(file, "eos", num_tokens));
  SKEIN_ASSIGN(special.pad, token_id(file, "padding", num_tokens));
  SKEIN_ASSIGN(special.unk, token_id(file, "unknown", num_tokens));
  const bool add_bos = vocabulary.score_bpe || vocabulary.rule->add_bos;
  SKEIN_ASSIGN(special.add_bos, flag(file, "tokenizer.ggml.add_bos_token", add_bos));
  SKEIN_ASSIGN(special.add_eos, flag(file, "tokenizer.ggml.add_eos_token", false));
  if ((special.add_bos && !special.bos) || (special.add_eos && !special.eos)) {
    return Error{concat(file.path(), ": the tokenizer adds a ", special.bos ? "end" : "beginning",
                        "-of-sequence token, but the file does not say which it is")};
  }
  find_end_of_generation(vocabulary.added_tokens(), special);
  SKEIN_ASSIGN(const auto end_of_turn, token_id(file, "eot", num_tokens));
  auto& ends = special.end_of_generation;
  if (end_of_turn && std::find(ends.begin(), ends.end(), *end_of_turn) == ends.end()) ends.push_back(*end_of_turn);
  return {};
}

}  // namespace

std::vector<AddedToken> GgufVocabulary::added_tokens() const {
  std::vector<AddedToken> added;
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    const bool special_type = types[id] == GgufTokenType::kControl || types[id] == GgufTokenType::kUnknown;
    if ((special_type || types[id] == GgufTokenType::kUserDefined) && !tokens[id].empty()) {
      added.push_back({.id = static_cast<TokenId>(id), .content = tokens[id], .special = special_type});
    }
  }
  return added;
}

Result<GgufVocabulary> read_gguf_vocabulary(const GgufFile& file) {
  SKEIN_ASSIGN(const std::string model, file.text("tokenizer.ggml.model"));
  GgufVocabulary vocabulary;
  vocabulary.score_bpe = model == "llama";
  if (!vocabulary.score_bpe && model != "gpt2") {
    return Error{concat(file.path(), ": the tokenizer model \"", printable(model),
                        "\" is not one Skein reads from GGUF (gpt2, llama); use the model's Hugging Face folder")};
  }
  SKEIN_TRY(read_tokens(file, vocabulary));
  SKEIN_TRY(vocabulary.score_bpe ? read_scores(file, vocabulary) : read_merges(file, vocabulary));
  SKEIN_TRY(read_special(file, vocabulary));
  if (file.find("tokenizer.chat_template") != nullptr) {
    SKEIN_ASSIGN(vocabulary.chat_template, file.text("tokenizer.chat_template"));
  }
  return vocabulary;
}

// Patterns as the models' own tokenizer.json files have them; names as llama.cpp writes them
// (convert_hf_to_gguf.py, src/llama-vocab.cpp). Only names whose own tokenizer is known, normaliser included: llama.cpp
// drops normalisers, so that a shared pattern alone does not make the same ids.
static const std::vector<PreTokenizerRule>& pre_tokenizer_rules() {
  static const char* const kContractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
  static const char* const kSymbolsAndSpaces = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  static const auto cl100k = [](const char* digits) {
    return concat(kContractions, "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|", digits, kSymbolsAndSpaces);
  };
  static const std::vector<PreTokenizerRule> rules = {
      {.names = {"gpt-2", "phi-2"}, .patterns = {kGpt2Pattern}},
      {.names = {"smollm", "starcoder", "refact"}, .patterns = {"\\p{N}", kGpt2Pattern}},
      {.names = {"qwen2"}, .patterns = {cl100k("\\p{N}")}, .nfc = true},
      {.names = {"llama-bpe", "llama3", "llama-v3"},
       .patterns = {cl100k("\\p{N}{1,3}")},
       .ignore_merges = true,
       .add_bos = true},
      // What llama.cpp does without a name.
      {.names = {"default"}, .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|]+", kGpt2Pattern, "\\p{N}+", "[0-9][0-9][0-9]"}},
  };
  return rules;
}

const PreTokenizerRule* find_pre_tokenizer_rule(const std::string& name) {
  for (const PreTokenizerRule& rule : pre_tokenizer_rules()) {
    if (std::find(rule.names.begin(), rule.names.end(), name) != rule.names.end()) return &rule;
  }
  return nullptr;
}

const PreTokenizerRule* find_pre_tokenizer_rule(const std::vector<std::string>& patterns, bool nfc,
                                                bool ignore_merges) {
  for (const PreTokenizerRule& rule : pre_tokenizer_rules()) {
    if (rule.patterns == patterns && rule.nfc == nfc && rule.ignore_merges == ignore_merges) return &rule;
  }
  return nullptr;
}

std::string known_pre_tokenizer_names() {
  std::string names;
  for (const PreTokenizerRule& rule : pre_tokenizer_rules()) {
    for (const std::string& name : rule.names) names += (names.empty() ? "" : ", ") + name;
  }
  return names;
}

}  // namespace skein
