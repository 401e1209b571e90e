// Recipes with vocabularies and adapters, from file to finished folder, against mergekit's and PEFT's results.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "skein/base/concat.h"
#include "skein/io/json.h"
#include "tests/agreement/merge/golden_merge.h"

namespace skein::merge::agreement {
namespace {

// A recipe of the test's own, its paths relative to tests/golden/merge/FOLDER, where the test then works.
class RecipeFile {
 public:
  RecipeFile(const std::string& text, const std::string& folder = "") {
    std::filesystem::current_path(golden_folder() + folder);
    path_ = (std::filesystem::temp_directory_path() / concat("skein_recipe_", getpid(), ".yml")).string();
    or_throw(write_text_atomically(real_env(), path_, text));
  }
  ~RecipeFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Json json_of(const std::string& folder, const std::string& name) {
  return or_throw(read_json_file(real_env(), join_path(folder, name)));
}

TEST(InputsAgreement, VocabulariesAreMergekitsByToken) {
  std::filesystem::current_path(golden_folder() + "tokenizer");
  for (const char* name : {"union", "model", "tokens", "unigram_union"}) {
    Json config, tokenizer;
    const Tensors ours = merge_with_skein(concat("recipes/", name, ".yml"), 0, [&](const std::string& folder) {
      config = json_of(folder, "config.json");
      tokenizer = json_of(folder, "tokenizer.json");
    });
    const Tensors theirs = read_tensors(concat("expected/", name, ".safetensors"));
    const Json expected = json_of("expected", concat(name, ".json"));
    EXPECT_EQ(config["vocab_size"], expected["vocab_size"]) << name;
    std::map<std::string, std::int64_t> ids;
    const Json& vocab = tokenizer["model"]["vocab"];
    for (std::size_t at = 0; at < vocab.size() && vocab.is_array(); ++at) ids[vocab[at][0].get<std::string>()] = at;
    if (vocab.is_object()) {
      for (const auto& [token, id] : vocab.items()) ids[token] = id.get<std::int64_t>();
    }
    for (const Json& added : tokenizer["added_tokens"])
      ids[added["content"].get<std::string>()] = added["id"].get<std::int64_t>();
    for (const char* tensor : {"model.embed_tokens.weight", "lm_head.weight"}) {
      const Tensor& our = ours.at(tensor);
      const Tensor& their = theirs.at(tensor);
      ASSERT_EQ(our.shape, their.shape);
      const std::int64_t width = our.shape[1];
      for (const auto& [token, id] : expected["vocabulary"].items()) {
        ASSERT_TRUE(ids.contains(token)) << name << " " << token;
        for (std::int64_t column = 0; column < width; ++column) {
          // Elements of 0.02 * N(0, 1): terms below 0.1, ten roundings.
          EXPECT_NEAR(our.values[ids[token] * width + column], their.values[id.get<std::int64_t>() * width + column],
                      1e-7)
              << name << " " << tensor << " " << token;
        }
      }
    }
    for (const auto& [tensor, their] : theirs) {  // the rest is untouched by the vocabulary
      if (their.shape.size() == 1) {
        for (std::size_t at = 0; at < their.values.size(); ++at)
          EXPECT_NEAR(ours.at(tensor).values[at], their.values[at], 1e-7);
      }
    }
  }
}

TEST(InputsAgreement, AnAdapterIsFoldedAsByPeft) {
  const Tensors folded = read_tensors(golden_folder() + "adapters/folded.safetensors");
  for (const std::string adapter : {"two", "three", "patterns", "rslora"}) {
    const RecipeFile recipe(
        concat("merge_method: passthrough\nmodels:\n- model: models/f32/base+adapters/", adapter, "\n"));
    const Tensors ours = merge_with_skein(recipe.path());
    const Tensors base = read_tensors(golden_folder() + "models/f32/base/model.safetensors");
    for (const auto& [name, tensor] : ours) {
      const auto found = folded.find(concat(adapter, "|", name));
      if (found == folded.end()) {
        EXPECT_EQ(tensor.values, base.at(name).values) << name;
        continue;
      }
      for (std::size_t at = 0; at < tensor.values.size(); ++at) {
        // See AdapterSource, FoldsAsPeftDoes...: ranks up to 5, entries up to 0.25.
        EXPECT_NEAR(tensor.values[at], found->second.values[at], 1e-6) << adapter << " " << name << " " << at;
      }
    }
  }
}

// A merge over base+adapter inputs is that over the folded fine-tunes: here task arithmetic, whose result is known.
TEST(InputsAgreement, AdaptersMergeAsFineTunes) {
  const RecipeFile recipe(
      "merge_method: task_arithmetic\nbase_model: models/f32/base\nmodels:\n"
      "- {model: models/f32/base+adapters/two, parameters: {weight: 0.5}}\n"
      "- {model: models/f32/base+adapters/rslora, parameters: {weight: -0.25}}\n");
  const Tensors ours = merge_with_skein(recipe.path());
  const Tensors base = read_tensors(golden_folder() + "models/f32/base/model.safetensors");
  const Tensors folded = read_tensors(golden_folder() + "adapters/folded.safetensors");
  bool moved = false;
  for (const auto& [name, tensor] : ours) {
    for (std::size_t at = 0; at < tensor.values.size(); ++at) {
      const double before = base.at(name).values[at];
      double expected = before;
      for (const auto& [adapter, weight] : {std::pair{"two", 0.5}, std::pair{"rslora", -0.25}}) {
        const auto found = folded.find(concat(adapter, "|", name));
        if (found != folded.end()) expected += weight * (found->second.values[at] - before);
      }
      moved = moved || std::abs(expected - before) > 1e-4;
      ASSERT_NEAR(tensor.values[at], expected, 1e-6) << name << " " << at;
    }
  }
  EXPECT_TRUE(moved);
}

}  // namespace
}  // namespace skein::merge::agreement
