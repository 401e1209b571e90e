// The vocabularies of real models, which are not in the tree: SKEIN_TEST_MODELS names a folder with smollm2.gguf and
// gemma3-270m.gguf (default: models/ in the source tree).
#include <gtest/gtest.h>

#include <cstdlib>

#include "skein/base/concat.h"
#include "skein/text/golden_corpus.h"

namespace skein {
namespace {

std::unique_ptr<Tokenizer> load_model(const std::string& name) {
  const char* folder = std::getenv("SKEIN_TEST_MODELS");
  const std::string models = folder != nullptr && *folder != '\0' ? folder : SKEIN_SOURCE_DIR "/models";
  return or_throw(load_tokenizer(real_env(), join_path(models, name + ".gguf")));
}

TEST(GgufTokenizer, GivesLlamaCppsIdsForSmolLM2) { expect_golden_ids(*load_model("smollm2"), "smollm2"); }

TEST(GgufTokenizer, GivesLlamaCppsIdsForGemma3) { expect_golden_ids(*load_model("gemma3-270m"), "gemma3-270m"); }

}  // namespace
}  // namespace skein
