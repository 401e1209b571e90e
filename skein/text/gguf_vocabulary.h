// The tokenizer that a GGUF file carries ("tokenizer.ggml.*"), read and checked.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/gguf.h"
#include "skein/text/added_tokens.h"
#include "skein/text/tokenizer.h"

namespace skein {

// What a pre-tokenizer name ("tokenizer.ggml.pre") stands for.
struct PreTokenizerRule {
  std::vector<std::string> names;
  std::vector<std::string> patterns;  // each cuts what the one before left (PreTokenizer::isolating)
  bool nfc = false;                   // the model's own tokenizer composes characters first
  bool ignore_merges = false;         // a word that is a token is that token
  bool add_bos = false;               // unless the file says otherwise
};
// Null for a name that Skein does not know.
const PreTokenizerRule* find_pre_tokenizer_rule(const std::string& name);
// The one that cuts just so; null if there is none.
const PreTokenizerRule* find_pre_tokenizer_rule(const std::vector<std::string>& patterns, bool nfc, bool ignore_merges);
std::string known_pre_tokenizer_names();

enum class GgufTokenType : std::uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct GgufVocabulary {
  bool score_bpe = false;                                   // tokenizer.ggml.model: false "gpt2", true "llama"
  const PreTokenizerRule* rule = nullptr;                   // gpt2
  std::vector<std::pair<std::string, std::string>> merges;  // gpt2
  std::vector<float> scores;                                // llama
  bool add_space_prefix = true;                             // llama
  std::vector<std::string> tokens;
  std::vector<GgufTokenType> types;  // as long as tokens
  SpecialTokens special;
  std::optional<std::string> chat_template;

  // Control, unknown and user-defined tokens: those that are looked for in the text itself.
  std::vector<AddedToken> added_tokens() const;
};

Result<GgufVocabulary> read_gguf_vocabulary(const GgufFile& file);

}  // namespace skein
