// Texts as directions: a BERT sentence encoder (all-MiniLM-L6-v2) with mean pooling, each vector of length 1.
//
// Thread-safety: const after loading.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/io/env.h"
#include "skein/nn/bert/bert.h"
#include "skein/text/word_piece.h"

namespace skein {

class SentenceEncoder {
 public:
  // A sentence-transformers folder: config.json, model.safetensors, tokenizer.json, and for the longest text
  // sentence_bert_config.json (absent: all positions). Throws Failure.
  static std::shared_ptr<const SentenceEncoder> load(Env& env, const std::string& folder);
  // (texts, D) f32, rows of length 1. Longer texts lose their end.
  at::Tensor embed(const std::vector<std::string>& texts) const;
  std::int64_t width() const { return bert_.config().d_model; }

 private:
  SentenceEncoder(Bert bert, WordPiece tokenizer, std::int64_t max_tokens)
      : bert_(std::move(bert)), tokenizer_(std::move(tokenizer)), max_tokens_(max_tokens) {}
  Bert bert_;
  WordPiece tokenizer_;
  std::int64_t max_tokens_;
};

}  // namespace skein
