#include <gtest/gtest.h>

#include "skein/base/concat.h"
#include "skein/io/test_bytes.h"
#include "skein/text/gguf_vocabulary.h"
#include "skein/text/tokenizer.h"

namespace skein {
namespace {

using testing::little_endian;

// Writes the metadata of a GGUF file; no tensors.
class GgufBytes {
 public:
  GgufBytes& text(const std::string& key, const std::string& value) { return add(key, 8, string(value)); }
  GgufBytes& flag(const std::string& key, bool value) { return add(key, 7, std::string(1, value ? '\1' : '\0')); }
  GgufBytes& integer(const std::string& key, std::uint32_t value) { return add(key, 4, little_endian(value)); }
  GgufBytes& texts(const std::string& key, const std::vector<std::string>& values) {
    std::string bytes = array(8, values.size());
    for (const std::string& value : values) bytes += string(value);
    return add(key, 9, bytes);
  }
  GgufBytes& integers(const std::string& key, const std::vector<std::int32_t>& values) {
    std::string bytes = array(5, values.size());
    for (const std::int32_t value : values) bytes += little_endian(value);
    return add(key, 9, bytes);
  }
  GgufBytes& floats(const std::string& key, const std::vector<float>& values) {
    std::string bytes = array(6, values.size());
    for (const float value : values) bytes += little_endian(value);
    return add(key, 9, bytes);
  }
  Result<std::unique_ptr<Tokenizer>> load() const {
    const auto env =
        testing::env_with("m.gguf", "GGUF" + little_endian<std::uint32_t>(3) + little_endian<std::uint64_t>(0) +
                                        little_endian<std::uint64_t>(count_) + body_);
    return load_tokenizer(*env, "m.gguf");
  }

 private:
  GgufBytes& add(const std::string& key, std::uint32_t type, const std::string& bytes) {
    body_ += string(key) + little_endian(type) + bytes;
    ++count_;
    return *this;
  }
  static std::string string(const std::string& value) { return little_endian<std::uint64_t>(value.size()) + value; }
  static std::string array(std::uint32_t type, std::uint64_t size) { return little_endian(type) + little_endian(size); }

  std::string body_;
  std::uint64_t count_ = 0;
};

GgufBytes byte_level(const std::string& pre) {
  return GgufBytes()
      .text("tokenizer.ggml.model", "gpt2")
      .text("tokenizer.ggml.pre", pre)
      .texts("tokenizer.ggml.tokens", {"<|end|>", "a", "b", "Ġ", "Ġa", "1", "2", "ab", "12", "<u>"})
      .integers("tokenizer.ggml.token_type", {3, 1, 1, 1, 1, 1, 1, 1, 1, 4})
      .texts("tokenizer.ggml.merges", {"Ġ a", "a b", "1 2"});
}

GgufBytes score_bpe() {
  return GgufBytes()
      .text("tokenizer.ggml.model", "llama")
      .texts("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab", "<0x41>", "  "})
      .floats("tokenizer.ggml.scores", {0, 0, 0, -5, -6, -7, -2, -1, 0, 0})
      .integers("tokenizer.ggml.token_type", {2, 3, 3, 1, 1, 1, 1, 1, 6, 4})
      .integer("tokenizer.ggml.bos_token_id", 1)
      .integer("tokenizer.ggml.eos_token_id", 2)
      .integer("tokenizer.ggml.unknown_token_id", 0);
}

std::vector<TokenId> ids(std::initializer_list<TokenId> list) { return list; }

TEST(GgufTokenizer, ReadsAByteLevelVocabulary) {
  const auto tokenizer = or_throw(byte_level("gpt-2").integer("tokenizer.ggml.eos_token_id", 0).load());
  EXPECT_EQ(tokenizer->encode("ab a12<|end|><u>"), ids({7, 4, 8, 0, 9}));
  EXPECT_EQ(tokenizer->decode(ids({7, 4, 8, 0, 9}), true), "ab a12<u>");
  EXPECT_EQ(tokenizer->special().end_of_generation, ids({0}));
  EXPECT_FALSE(tokenizer->special().add_bos);
}

TEST(GgufTokenizer, CutsAsThePreTokenizersNameSays) {
  EXPECT_EQ(or_throw(byte_level("smollm").load())->encode("12"), ids({5, 6}));
  EXPECT_EQ(or_throw(byte_level("qwen2").load())->encode("12"), ids({5, 6}));
  EXPECT_EQ(or_throw(byte_level("gpt-2").load())->encode("12"), ids({8}));
  EXPECT_EQ(or_throw(byte_level("default").load())->encode("12"), ids({8}));
}

TEST(GgufTokenizer, RefusesPreTokenizersItDoesNotKnow) {
  testing::expect_error(byte_level("brand-new").load(),
                        "m.gguf: the pre-tokenizer \"brand-new\" is not one Skein knows (gpt-2");
}

TEST(GgufTokenizer, ReadsAVocabularyWithScores) {
  const auto tokenizer = or_throw(score_bpe().load());
  // A space is put before, then the best scores merge first: "ab" (-1) before "▁a" (-2).
  EXPECT_EQ(tokenizer->encode("ab"), ids({1, 3, 7}));
  EXPECT_EQ(tokenizer->encode("a"), ids({1, 6}));
  EXPECT_EQ(tokenizer->decode(ids({1, 6, 4}), true), "aa");
  EXPECT_EQ(tokenizer->encode("x", {.add_special = false}), ids({3, 0}));  // no complete set of byte tokens: unknown
  EXPECT_EQ(tokenizer->decode(ids({8}), true), "A");
}

TEST(GgufTokenizer, PutsNoSpaceBeforeWhereTheFileSaysSo) {
  const auto tokenizer = or_throw(score_bpe().flag("tokenizer.ggml.add_space_prefix", false).load());
  EXPECT_EQ(tokenizer->encode("a a"), ids({1, 4, 6}));
  EXPECT_EQ(tokenizer->encode("a  a"), ids({1, 4, 9, 4}));  // two spaces are a user-defined token
}

TEST(GgufTokenizer, NeverMergesPlainTextIntoControlTokens) {
  const auto tokenizer = or_throw(score_bpe().load());
  const auto plain = tokenizer->encode("<s>", {.add_special = false, .parse_special = false});
  EXPECT_EQ(std::count(plain.begin(), plain.end(), 1), 0);
}

TEST(GgufTokenizer, SaysWhatIsWrongWithAFile) {
  testing::expect_error(GgufBytes().load(), "tokenizer.ggml.model");
  testing::expect_error(GgufBytes().text("tokenizer.ggml.model", "t5").load(), "the tokenizer model \"t5\" is not one");
  testing::expect_error(GgufBytes().text("tokenizer.ggml.model", "gpt2").load(),
                        "\"tokenizer.ggml.tokens\" is missing");
  const auto tokens = [] {
    return GgufBytes().text("tokenizer.ggml.model", "gpt2").texts("tokenizer.ggml.tokens", {"a", "b"});
  };
  testing::expect_error(tokens().load(), "\"tokenizer.ggml.merges\" is missing");
  testing::expect_error(tokens().texts("tokenizer.ggml.merges", {"ab"}).load(), "merge 0 is \"ab\"");
  testing::expect_error(tokens().texts("tokenizer.ggml.merges", {"a b"}).load(), "needs the token \"ab\"");
  testing::expect_error(tokens().integers("tokenizer.ggml.token_type", {1}).load(), "2 tokens but 1 token types");
  testing::expect_error(tokens().integers("tokenizer.ggml.token_type", {1, 9}).load(), "token 1 has the type 9");
  testing::expect_error(byte_level("gpt-2").integer("tokenizer.ggml.eos_token_id", 10).load(),
                        "the vocabulary has 10 tokens");
  testing::expect_error(byte_level("gpt-2").flag("tokenizer.ggml.add_bos_token", true).load(),
                        "does not say which it is");
  testing::expect_error(GgufBytes()
                            .text("tokenizer.ggml.model", "llama")
                            .texts("tokenizer.ggml.tokens", {"a", "b"})
                            .floats("tokenizer.ggml.scores", {1})
                            .load(),
                        "2 tokens but 1 scores");
}

}  // namespace
}  // namespace skein
