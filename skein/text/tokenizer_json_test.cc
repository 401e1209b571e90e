#include <gtest/gtest.h>

#include "skein/base/concat.h"
#include "skein/io/json.h"
#include "skein/text/golden_corpus.h"
#include "skein/text/stream_decoder.h"

namespace skein {
namespace {

std::unique_ptr<Tokenizer> load_tiny(const std::string& name) {
  const TinyTokenizer& files = tiny_tokenizers().at(name);
  return or_throw(tokenizer_from_json(files.json, files.config, name));
}

class TokenizerJsonGolden : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerJsonGolden, GivesTheIdsOfTheTokenizersLibrary) {
  const auto tokenizer = load_tiny(GetParam());
  expect_golden_ids(*tokenizer, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Tiny, TokenizerJsonGolden,
                         testing::Values("byte_level_gpt2", "byte_level_split", "byte_level_digits",
                                         "byte_fallback_llama2", "byte_fallback_gemma", "unigram_t5"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace skein
