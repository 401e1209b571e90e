#include "skein/text/gguf_export.h"

#include <gtest/gtest.h>

#include "skein/io/fault_env.h"
#include "skein/io/json.h"
#include "skein/io/test_bytes.h"

namespace skein {
namespace {

using testing::expect_error;

const char* const kByteLevel = R"({
  "added_tokens": [{"id": 0, "content": "<|end|>", "special": true}, {"id": 9, "content": "<u>", "special": false}],
  "normalizer": null,
  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "Digits", "individual_digits": true},
    {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
  "decoder": {"type": "ByteLevel"},
  "model": {"type": "BPE", "vocab": {"a": 1, "b": 2, "Ġ": 3, "Ġa": 4, "1": 5, "2": 6, "ab": 7, "12": 8},
            "merges": ["Ġ a", "a b", "1 2"]}})";
const char* const kConfig = R"({"eos_token": "<|end|>", "chat_template": "{{ messages }}"})";

const char* const kByteFallback = R"({
  "added_tokens": [{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true}],
  "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                 {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
  "pre_tokenizer": null,
  "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
              {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
  "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
            "vocab": {"<unk>": 0, "<s>": 1, "▁": 2, "a": 3, "b": 4, "ab": 5, "▁a": 6},
            "merges": ["a b", "▁ a"]}})";

// What a GGUF file of this tokenizer.json is read as.
Result<std::unique_ptr<Tokenizer>> by_way_of_gguf(const std::string& json, const std::string& config,
                                                  std::int64_t vocabulary_size) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("base"));
  testing::put_file(*env, "base/tokenizer.json", json);
  testing::put_file(*env, "base/tokenizer_config.json", config);
  SKEIN_ASSIGN(const GgufVocabulary vocabulary, gguf_vocabulary_of(*env, "base"));
  GgufMetadata metadata;
  SKEIN_TRY(add_vocabulary(vocabulary, vocabulary_size, metadata));
  SKEIN_ASSIGN(const auto writer, GgufWriter::create(*env, "m.gguf", metadata, {}));
  SKEIN_TRY(writer->finish());
  SKEIN_ASSIGN(const auto file, GgufFile::open(*env, "m.gguf"));
  return tokenizer_from_gguf(*file);
}

TEST(GgufExport, KeepsTheIdsOfAByteLevelVocabulary) {
  const auto before = or_throw(tokenizer_from_json(kByteLevel, kConfig, "tokenizer.json"));
  const auto after = or_throw(by_way_of_gguf(kByteLevel, kConfig, 12));
  for (const char* text : {"ab a12<|end|>ab", "a<u>b", " a  b12", "12"}) {
    EXPECT_EQ(after->encode(text), before->encode(text)) << text;
  }
  EXPECT_EQ(after->special().eos, before->special().eos);
  EXPECT_EQ(after->chat_template(), before->chat_template());
  EXPECT_TRUE(after->is_special(0));
  EXPECT_FALSE(after->is_special(9));
  EXPECT_EQ(after->vocabulary_size(), 12);  // padded to the embedding's rows
  EXPECT_EQ(after->token(11), "[PAD11]");
}

TEST(GgufExport, PutsMergesInTheirOrderByScores) {
  const auto before = or_throw(tokenizer_from_json(kByteFallback, "{}", "tokenizer.json"));
  const auto after = or_throw(by_way_of_gguf(kByteFallback, "{}", 7));
  for (const char* text : {"ab", "a", "b a ab", "aab"}) {
    EXPECT_EQ(after->encode(text, {.add_special = false}), before->encode(text, {.add_special = false})) << text;
  }
}

TEST(GgufExport, RefusesWhatGgufHasNoNameFor) {
  Json odd = Json::parse(kByteLevel);
  odd["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = false;
  expect_error(by_way_of_gguf(odd.dump(), kConfig, 12), "none that GGUF has a name for (gpt-2");
  expect_error(by_way_of_gguf(kByteLevel, kConfig, 5), "the tokenizer has 10 tokens, the embedding 5 rows");
}

}  // namespace
}  // namespace skein
