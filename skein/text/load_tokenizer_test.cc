#include <gtest/gtest.h>

#include "skein/io/test_bytes.h"
#include "skein/text/golden_corpus.h"

namespace skein {
namespace {

TEST(LoadTokenizer, ReadsAFolderAndItsConfigFiles) {
  const TinyTokenizer& files = tiny_tokenizers().at("byte_level_digits");
  const auto env = make_memory_env();
  or_throw(env->make_folders("model"));
  testing::put_file(*env, "model/tokenizer.json", files.json);
  testing::put_file(*env, "model/special_tokens_map.json", R"({"eos_token":{"content":"<|endoftext|>"}})");
  testing::put_file(*env, "model/chat_template.jinja", "{{ messages[0].content }}");
  const auto tokenizer = or_throw(load_tokenizer(*env, "model"));
  EXPECT_EQ(tokenizer->special().eos, 0);
  EXPECT_EQ(tokenizer->chat_template(), "{{ messages[0].content }}");
}

TEST(LoadTokenizer, TakesASentencePieceModelWhereThereIsNothingElse) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("t5"));
  testing::put_file(*env, "t5/spiece.model", or_throw(read_text_file(real_env(), golden_path("sp_unigram.model"))));
  EXPECT_EQ(or_throw(load_tokenizer(*env, "t5"))->vocabulary_size(), 800);
}

TEST(LoadTokenizer, NamesTheFilesItLookedFor) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("empty"));
  testing::expect_error(load_tokenizer(*env, "empty"), "empty: has no tokenizer.json, tokenizer.model or spiece.model");
  testing::expect_error(load_tokenizer(*env, "nowhere"), "nowhere");
}

}  // namespace
}  // namespace skein
