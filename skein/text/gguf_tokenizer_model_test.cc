// The vocabularies of real models, which are not in the tree: SKEIN_TEST_MODELS names a folder with smollm2.gguf and
// gemma3-270m.gguf (default: models/ in the source tree).
#include <gtest/gtest.h>

#include <cstdlib>

#include "skein/base/concat.h"
#include "skein/text/golden_corpus.h"

namespace skein {
namespace {

std::string model_path(const std::string& name) {
  const char* folder = std::getenv("SKEIN_TEST_MODELS");
  const std::string models = folder != nullptr && *folder != '\0' ? folder : SKEIN_SOURCE_DIR "/models";
  return join_path(models, name + ".gguf");
}

std::unique_ptr<Tokenizer> load_model(const std::string& name) {
  return or_throw(load_tokenizer(real_env(), model_path(name)));
}

TEST(GgufTokenizer, GivesLlamaCppsIdsForSmolLM2) { expect_golden_ids(*load_model("smollm2"), "smollm2"); }

TEST(GgufTokenizer, GivesLlamaCppsIdsForGemma3) { expect_golden_ids(*load_model("gemma3-270m"), "gemma3-270m"); }

TEST(GgufTokenizer, GivesBackTextInSmolLM2sBytes) {
  const auto tokenizer = load_model("smollm2");
  // SmolLM2's vocabulary lacks 21 bytes (a few control characters, and bytes no character in use begins with).
  std::string missing;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text(1, static_cast<char>(byte));
    if (tokenizer->encode(text).empty()) missing += text;
  }
  EXPECT_EQ(missing.size(), 21U);
  for (std::uint32_t seed = 0; seed < 2000; ++seed) {
    const std::string text = random_text(seed, true);
    std::string expected = text;
    std::erase_if(expected, [&](char c) { return missing.find(c) != std::string::npos; });
    ASSERT_EQ(tokenizer->decode(tokenizer->encode(text), false), expected) << "seed " << seed;
  }
}

TEST(GgufTokenizer, GivesBackAnyBytesForGemma3) {
  const auto tokenizer = load_model("gemma3-270m");
  for (std::uint32_t seed = 0; seed < 2000; ++seed) {
    const std::string text = random_text(seed, true);
    std::string expected = text;  // Gemma's normalisation: "▁" is a space
    for (std::size_t at = 0; (at = expected.find("▁", at)) != std::string::npos;) expected.replace(at, 3, " ");
    ASSERT_EQ(tokenizer->decode(tokenizer->encode(text, {.add_special = false}), false), expected) << "seed " << seed;
  }
}

std::string file_named(const std::vector<std::pair<std::string, std::string>>& files, const std::string& name) {
  for (const auto& [file, content] : files) {
    if (file == name) return content;
  }
  throw Failure(Error{"no " + name});
}

std::unique_ptr<Tokenizer> exported(const std::string& name) {
  const auto files = or_throw(hugging_face_tokenizer_files(*or_throw(GgufFile::open(real_env(), model_path(name)))));
  return or_throw(
      tokenizer_from_json(file_named(files, "tokenizer.json"), file_named(files, "tokenizer_config.json"), name));
}

TEST(HuggingFaceTokenizerFiles, KeepTheIdsOfSmolLM2) { expect_golden_ids(*exported("smollm2"), "smollm2"); }

TEST(HuggingFaceTokenizerFiles, KeepTheIdsOfGemma3) { expect_golden_ids(*exported("gemma3-270m"), "gemma3-270m"); }

TEST(HuggingFaceTokenizerFiles, KeepSpecialTokensAndTemplate) {
  const auto from = load_model("smollm2"), to = exported("smollm2");
  EXPECT_EQ(to->special().bos, from->special().bos);
  EXPECT_EQ(to->special().eos, from->special().eos);
  EXPECT_EQ(to->special().pad, from->special().pad);
  EXPECT_EQ(to->special().end_of_generation, from->special().end_of_generation);
  EXPECT_EQ(to->chat_template(), from->chat_template());
}

}  // namespace
}  // namespace skein
