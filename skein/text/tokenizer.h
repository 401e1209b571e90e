// Text to token ids and back. Ids are those of the model's own tokenizer, whatever file it came from.
//
// Text is bytes, UTF-8 where it can be. Each run of bytes that are not UTF-8 is a word of its own: a vocabulary of
// bytes (or with byte tokens) spells it exactly, so decode(encode(x)) == x; others give their unknown token.
// docs/design/tokenizers.md has the rules in full.
//
// Thread-safety: const after loading, may be shared.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/io/gguf.h"

namespace skein {

using TokenId = std::int32_t;

struct EncodeOptions {
  bool add_special = true;    // the beginning and end tokens the tokenizer itself adds (bos for Gemma, eos for T5)
  bool parse_special = true;  // "<|im_start|>" in the text is the special token; false: plain characters
};

struct SpecialTokens {
  std::optional<TokenId> bos, eos, pad, unk;
  std::vector<TokenId> end_of_generation;  // eos, end of turn, ...: generation stops at any of them
  bool add_bos = false;                    // whether encode() adds them
  bool add_eos = false;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Throws Failure when a pattern of the tokenizer's file exceeds its step limit on this text, and for texts over 1
  // GiB.
  virtual std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options) const = 0;
  // Bytes of the ids joined. skip_special: leaves out special tokens. May end inside a UTF-8 character. Ids outside the
  // vocabulary (padding rows of an embedding) are nothing.
  virtual std::string decode(std::span<const TokenId> ids, bool skip_special) const = 0;
  // The token as the vocabulary spells it, for traces ("Ġthe").
  virtual std::string_view token(TokenId id) const = 0;
  // Bytes of one id inside a text. decode() is these joined, less one leading space if strips_leading_space().
  virtual std::string piece(TokenId id) const { return decode(std::span<const TokenId>(&id, 1), false); }
  virtual bool strips_leading_space() const { return false; }
  virtual bool is_special(TokenId) const { return false; }
  virtual std::int64_t vocabulary_size() const = 0;  // ids are below it; there may be holes
  virtual const SpecialTokens& special() const = 0;
  // Jinja source of the chat template, if the model has one.
  virtual const std::optional<std::string>& chat_template() const = 0;
  std::vector<TokenId> encode(std::string_view text) const { return encode(text, EncodeOptions{}); }
};

// From the text of tokenizer.json (and tokenizer_config.json / special_tokens_map.json, may be empty), of a
// SentencePiece .model file, of a GGUF file. name: for messages.
Result<std::unique_ptr<Tokenizer>> tokenizer_from_json(const std::string& tokenizer_json,
                                                       const std::string& tokenizer_config_json,
                                                       const std::string& name);
Result<std::unique_ptr<Tokenizer>> tokenizer_from_sentencepiece(std::span<const std::byte> model,
                                                                const std::string& tokenizer_config_json,
                                                                const std::string& name);
Result<std::unique_ptr<Tokenizer>> tokenizer_from_gguf(const GgufFile& file);
// Of BASE: a .gguf file, or a folder with tokenizer.json, tokenizer.model or spiece.model (in this order).
Result<std::unique_ptr<Tokenizer>> load_tokenizer(Env& env, const std::string& base);

// The files of a Hugging Face tokenizer with the same ids as a GGUF's vocabulary: {file name, content}, at least
// tokenizer.json, tokenizer_config.json; transformers' AutoTokenizer loads them.
Result<std::vector<std::pair<std::string, std::string>>> hugging_face_tokenizer_files(const GgufFile& file);

}  // namespace skein
