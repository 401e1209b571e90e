#include "skein/text/stream_decoder.h"

#include <gtest/gtest.h>

#include "skein/text/golden_corpus.h"
#include "skein/text/utf8.h"

namespace skein {
namespace {

std::unique_ptr<Tokenizer> load_tiny(const std::string& name) {
  const TinyTokenizer& files = tiny_tokenizers().at(name);
  return or_throw(tokenizer_from_json(files.json, files.config, name));
}

TEST(StreamDecoder, GivesWholeCharactersAndInTheEndAllOfTheText) {
  for (const char* const name : {"byte_level_digits", "byte_fallback_llama2", "byte_level_gpt2", "unigram_t5"}) {
    const auto tokenizer = load_tiny(name);
    for (std::size_t line = 0; line < golden_corpus().size(); line += 7) {
      const auto ids = tokenizer->encode(golden_corpus()[line]);
      for (const bool skip_special : {false, true}) {
        StreamDecoder stream(*tokenizer, skip_special);
        std::string text;
        for (const TokenId id : ids) {
          const std::string part = stream.push(id);
          ASSERT_EQ(valid_utf8_prefix(part), part.size()) << name << ", line " << line + 1;
          text += part;
        }
        text += stream.finish();
        ASSERT_EQ(text, tokenizer->decode(ids, skip_special)) << name << ", line " << line + 1;
      }
    }
  }
}

TEST(StreamDecoder, DoesNotHoldBackBytesThatCannotBecomeACharacter) {
  const auto tokenizer = load_tiny("byte_level_digits");
  StreamDecoder stream(*tokenizer, true);
  const auto ids = tokenizer->encode("\xF0\x9F\xFFz");
  std::string text;
  for (const TokenId id : ids) text += stream.push(id);
  EXPECT_EQ(text, "\xF0\x9F\xFFz");
  EXPECT_EQ(stream.finish(), "");
}

TEST(StreamDecoder, GivesWhatIsLeftOfACharacterAtTheEnd) {
  const auto tokenizer = load_tiny("byte_level_digits");
  StreamDecoder stream(*tokenizer, true);
  std::string text;
  for (const TokenId id : tokenizer->encode("\xE2\x82")) text += stream.push(id);
  EXPECT_EQ(text, "");
  EXPECT_EQ(stream.finish(), "\xE2\x82");
}

TEST(StreamDecoder, KeepsTheLeadingSpaceOfTextThatContinues) {
  const auto tokenizer = load_tiny("byte_fallback_llama2");
  const auto ids = tokenizer->encode("the", {.add_special = false});
  StreamDecoder starting(*tokenizer, true), continuing(*tokenizer, true, true);
  std::string first, second;
  for (const TokenId id : ids) {
    first += starting.push(id);
    second += continuing.push(id);
  }
  EXPECT_EQ(first, "the");
  EXPECT_EQ(second, " the");
}

}  // namespace
}  // namespace skein
