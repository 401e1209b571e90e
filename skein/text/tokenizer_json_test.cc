#include <gtest/gtest.h>

#include "skein/base/concat.h"
#include "skein/io/json.h"
#include "skein/text/golden_corpus.h"
#include "skein/text/normalizer.h"

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

// decode(encode(x)) == x for every string of bytes, where the vocabulary has all bytes and nothing normalises.
TEST(ByteLevelTokenizer, GivesBackAnyBytes) {
  const auto tokenizer = load_tiny("byte_level_digits");
  for (std::uint32_t seed = 0; seed < 3000; ++seed) {
    const std::string text = random_text(seed, true);
    for (const bool parse_special : {false, true}) {
      const auto ids = tokenizer->encode(text, {.add_special = false, .parse_special = parse_special});
      ASSERT_EQ(tokenizer->decode(ids, false), text) << "seed " << seed;
    }
  }
}

TEST(ByteLevelTokenizer, GivesBackTheComposedTextWhereTheModelComposes) {
  const auto tokenizer = load_tiny("byte_level_split");
  const Normalizer nfc = Normalizer::nfc();
  for (std::uint32_t seed = 0; seed < 3000; ++seed) {
    const std::string text = random_text(seed, false);
    ASSERT_EQ(tokenizer->decode(tokenizer->encode(text, {.add_special = false, .parse_special = false}), false),
              nfc.apply(text))
        << "seed " << seed;
  }
}

// "▁" is how these vocabularies spell a space, so a "▁" of the text comes back as one: that is their normalisation.
std::string spaces_for_metaspaces(std::string text) {
  for (std::size_t at = 0; (at = text.find("▁", at)) != std::string::npos;) text.replace(at, 3, " ");
  return text;
}

TEST(ByteFallbackTokenizer, GivesBackTheNormalisedText) {
  const EncodeOptions plain{.add_special = false, .parse_special = false};
  const auto gemma = load_tiny("byte_fallback_gemma"), llama = load_tiny("byte_fallback_llama2");
  for (std::uint32_t seed = 0; seed < 3000; ++seed) {
    const std::string bytes = random_text(seed, true), text = random_text(seed, false);
    ASSERT_EQ(gemma->decode(gemma->encode(bytes, plain), false), spaces_for_metaspaces(bytes)) << "seed " << seed;
    // With a space put before each well-formed run, only texts of one run come back.
    ASSERT_EQ(llama->decode(llama->encode(text, plain), false), spaces_for_metaspaces(text)) << "seed " << seed;
  }
}

TEST(TokenizerJson, ParsesSpecialTokensOnlyWhenAsked) {
  const auto tokenizer = load_tiny("byte_level_gpt2");
  const TokenId end = *tokenizer->special().eos;
  EXPECT_EQ(tokenizer->token(end), "<|im_end|>");
  EXPECT_EQ(tokenizer->encode("<|im_end|>", {.parse_special = true}), (std::vector<TokenId>{end}));
  const auto plain = tokenizer->encode("<|im_end|>", {.parse_special = false});
  EXPECT_GT(plain.size(), 1U);
  EXPECT_EQ(tokenizer->decode(plain, true), " <|im_end|>");  // this one puts a space before texts
  EXPECT_EQ(tokenizer->decode(std::vector<TokenId>{end}, true), "");
  EXPECT_EQ(tokenizer->decode(std::vector<TokenId>{end}, false), "<|im_end|>");
}

TEST(TokenizerJson, FindsWhereGenerationEnds) {
  const auto chat = load_tiny("byte_level_gpt2");
  ASSERT_EQ(chat->special().end_of_generation.size(), 2U);
  EXPECT_EQ(chat->token(chat->special().end_of_generation[0]), "<|endoftext|>");
  EXPECT_EQ(chat->token(chat->special().end_of_generation[1]), "<|im_end|>");
  const auto llama3 = load_tiny("byte_level_split");
  EXPECT_TRUE(llama3->special().add_bos);
  EXPECT_EQ(llama3->special().end_of_generation, (std::vector<TokenId>{*llama3->special().eos}));
}

TEST(TokenizerJson, IgnoresIdsOutsideTheVocabulary) {
  const auto tokenizer = load_tiny("byte_level_digits");
  const auto size = static_cast<TokenId>(tokenizer->vocabulary_size());
  EXPECT_EQ(tokenizer->decode(std::vector<TokenId>{-1, size, 1 << 30}, false), "");
  EXPECT_EQ(tokenizer->token(size), "");
  EXPECT_FALSE(tokenizer->is_special(-1));
}

TEST(TokenizerJson, LetsTheConfigReplaceThePostProcessor) {
  const TinyTokenizer& files = tiny_tokenizers().at("byte_fallback_llama2");
  const auto with = [&](const char* flags) {
    const std::string config = concat("{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"}", flags, "}");
    return or_throw(tokenizer_from_json(files.json, config, "test"))->encode("");
  };
  EXPECT_EQ(with(""), (std::vector<TokenId>{1}));
  EXPECT_EQ(with(",\"add_bos_token\":false"), (std::vector<TokenId>{}));
  EXPECT_EQ(with(",\"add_bos_token\":true,\"add_eos_token\":true"), (std::vector<TokenId>{1, 2}));
}

TEST(TokenizerJson, TakesTheDefaultOfNamedTemplates) {
  const TinyTokenizer& files = tiny_tokenizers().at("byte_level_digits");
  const std::string config =
      R"({"chat_template":[{"name":"tool_use","template":"t"},{"name":"default","template":"d"}]})";
  EXPECT_EQ(or_throw(tokenizer_from_json(files.json, config, "test"))->chat_template(), "d");
}

// One change each to a good file, and what the message must say.
TEST(TokenizerJson, SaysWhatIsWrongWithAFile) {
  const Json good = or_throw(parse_json(tiny_tokenizers().at("byte_level_digits").json, "test"));
  const auto message = [&](const char* pointer, const Json& value) {
    Json bad = good;
    bad[Json::json_pointer(pointer)] = value;
    const auto tokenizer = tokenizer_from_json(bad.dump(), "", "tokenizer.json");
    return tokenizer.ok() ? std::string("read without complaint") : tokenizer.error().message;
  };
  const std::tuple<const char*, Json, const char*> cases[] = {
      {"/model/type", "WordPiece", "the model \"WordPiece\" is not one Skein has"},
      {"/model/vocab", Json::array(), "model.vocab is not an object"},
      {"/model/vocab/!", 1.5, "the id of \"!\" is not an integer"},
      {"/model/vocab/!", -1, "has the id -1"},
      {"/model/vocab/!", std::int64_t{1} << 40, "are allowed"},
      {"/model/vocab/!", 2, "belongs to both"},
      {"/model/merges", "x", "model.merges is not a list"},
      {"/model/merges/0", "a b c", "two tokens were expected"},
      {"/model/merges/0", Json::array({"Ġ", "nope"}), "needs the token \"nope\""},
      {"/model/dropout", 0.1, "dropout"},
      {"/model/end_of_word_suffix", "</w>", "suffix"},
      {"/model/unk_token", "<none>", "lacks its unknown token"},
      {"/normalizer", Json{{"type", "Lowercase"}}, "the normalizer \"Lowercase\""},
      {"/pre_tokenizer/pretokenizers/0",
       Json{{"type", "Split"}, {"pattern", {{"Regex", "("}}}, {"behavior", "Isolated"}}, "cannot be compiled"},
      {"/decoder", Json{{"type", "WordPiece"}}, "the decoder \"WordPiece\""},
      {"/decoder", Json{{"type", "Fuse"}}, "only one is ByteLevel"},
      {"/post_processor", Json{{"type", "BertProcessing"}}, "the post-processor \"BertProcessing\""},
      {"/post_processor", Json{{"type", "TemplateProcessing"}, {"single", Json::array()}}, "uses the text 0 times"},
      {"/added_tokens/0/id", 5, "belongs to both"},
      {"/added_tokens/0/content", 7, "content"},
  };
  for (const auto& [pointer, value, expected] : cases) {
    const std::string found = message(pointer, value);
    EXPECT_NE(found.find(expected), std::string::npos) << pointer << " = " << value.dump() << "\n" << found;
  }
  const auto config = tokenizer_from_json(good.dump(), R"({"eos_token":"<nowhere>"})", "tokenizer.json");
  ASSERT_FALSE(config.ok());
  EXPECT_NE(config.error().message.find("\"<nowhere>\" is not in the vocabulary"), std::string::npos);
}

TEST(TokenizerJson, ThrowsRatherThanHangOnAHostilePattern) {
  Json json = or_throw(parse_json(tiny_tokenizers().at("byte_level_digits").json, "test"));
  json["pre_tokenizer"]["pretokenizers"][0] = {
      {"type", "Split"}, {"pattern", {{"Regex", "(x+x+)+$"}}}, {"behavior", "Isolated"}, {"invert", false}};
  const auto tokenizer = or_throw(tokenizer_from_json(json.dump(), "", "test"));
  EXPECT_THROW(tokenizer->encode(std::string(5000, 'x') + "c"), Failure);
  EXPECT_NO_THROW(tokenizer->encode("harmless"));
}

}  // namespace
}  // namespace skein
