// For tests: the corpus of tests/golden/tokenizer and the ids that a peer gave it
// (tools/goldens/make_tokenizer_golden.py).
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "skein/text/tokenizer.h"

namespace skein {

std::string golden_path(const std::string& name);
const std::vector<std::string>& golden_corpus();
// Per line of the corpus, what the peer gave.
std::vector<std::vector<TokenId>> golden_ids(const std::string& name);
// The tiny tokenizers: tokenizer.json and tokenizer_config.json by name.
struct TinyTokenizer {
  std::string json, config;
};
const std::map<std::string, TinyTokenizer>& tiny_tokenizers();

// Every line's ids must be the peer's; prints the first few that are not.
void expect_golden_ids(const Tokenizer& tokenizer, const std::string& name, const EncodeOptions& options = {});

// Random text for fuzzing: words, digits, spaces, characters of all planes; bytes: also bytes that are not UTF-8.
std::string random_text(std::uint32_t seed, bool bytes);

}  // namespace skein
