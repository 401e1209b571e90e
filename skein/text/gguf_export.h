// A Hugging Face tokenizer as the vocabulary of a GGUF file.
#pragma once

#include <string>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/io/gguf_writer.h"
#include "skein/text/gguf_vocabulary.h"

namespace skein {

// Of BASE: a .gguf file's own, or the one that a folder's tokenizer.json says. llama.cpp knows byte-level BPE by the
// name of its cuts, so only those that have a name (find_pre_tokenizer_rule) can be said; a vocabulary with byte
// fallback (Llama 2, Gemma) gets scores that put its merges in their order. Others are errors that say what is odd.
Result<GgufVocabulary> gguf_vocabulary_of(Env& env, const std::string& base);

// The "tokenizer.*" entries. vocabulary_size: rows of the embedding; ids without a token are padding, as llama.cpp's
// converter writes them.
Status add_vocabulary(const GgufVocabulary& vocabulary, std::int64_t vocabulary_size, GgufMetadata& metadata);

}  // namespace skein
