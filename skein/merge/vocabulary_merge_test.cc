#include "skein/merge/vocabulary_merge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "skein/base/concat.h"
#include "skein/io/safetensors.h"
#include "skein/merge/model_vocabulary.h"
#include "skein/text/tokenizer.h"

namespace skein::merge {
namespace {

using testing::HasSubstr;

const std::string kGolden = std::string(SKEIN_SOURCE_DIR) + "/tests/golden/merge/tokenizer/";
constexpr double kWeights[] = {0.5, 0.3, 0.2};  // of the recipes

// A whole tensor in memory.
class ArrayReader : public TensorReader {
 public:
  ArrayReader(Shape shape, std::vector<float> values) : shape_(std::move(shape)), values_(std::move(values)) {}
  const Shape& shape() const override { return shape_; }
  DType dtype() const override { return DType::kF32; }
  Status read(std::int64_t first, std::int64_t count, std::byte* out, std::vector<std::byte>&) const override {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(out) % 64, 0U);
    if (first < 0 || first + count > static_cast<std::int64_t>(values_.size())) return Error{"outside of the tensor"};
    std::memcpy(out, values_.data() + first, count * sizeof(float));
    return {};
  }
  void ranges(std::int64_t, std::int64_t, std::vector<FileRange>&) const override {}
  std::int64_t working_bytes(std::int64_t) const override { return 0; }

 private:
  Shape shape_;
  std::vector<float> values_;
};

struct Tensor {
  Shape shape;
  std::vector<float> values;
};
Tensor load(const std::string& path, const std::string& name) {
  const auto file = or_throw(open_safetensors(real_env(), path));
  const TensorInfo* info = file->find(name);
  if (info == nullptr) throw Failure(Error{concat(path, " lacks ", name)});
  Tensor tensor{.shape = info->shape};
  tensor.values.resize(*checked_numel(info->shape));
  or_throw(file->read(name, DType::kF32, std::as_writable_bytes(std::span(tensor.values))));
  return tensor;
}

std::int64_t rows_of(const std::string& model) {
  const Json config = or_throw(read_json_file(real_env(), kGolden + model + "/config.json"));
  return config["vocab_size"].get<std::int64_t>();
}

std::vector<float> read_all(const TensorReader& reader, std::int64_t at_once) {
  std::int64_t total = *checked_numel(reader.shape());
  std::vector<float> all(total);
  std::vector<std::byte> scratch;
  alignas(64) std::byte buffer[4096];
  for (std::int64_t first = 0; first < total; first += at_once) {
    const std::int64_t count = std::min(at_once, total - first);
    or_throw(reader.read(first, count, buffer, scratch));
    std::memcpy(all.data() + first, buffer, count * sizeof(float));
  }
  return all;
}

struct Case {
  Recipe recipe;
  std::vector<VocabularyInput> inputs;
  MergedVocabulary merged;
};
Case merge_case(const std::string& name) {
  Case result;
  result.recipe =
      or_throw(parse_recipes(or_throw(read_text_file(real_env(), kGolden + "recipes/" + name + ".yml")), name)).at(0);
  for (const ModelRef& model : result.recipe.models()) {
    result.inputs.push_back({.ref = model, .folder = kGolden + model.path, .num_rows = rows_of(model.path)});
  }
  result.merged = or_throw(merge_vocabularies(real_env(), *result.recipe.tokenizer, result.inputs, 0, "recipe.yml"));
  return result;
}

std::shared_ptr<const TensorReader> merged_reader(const Case& merge, const std::string& tensor, int model) {
  std::vector<std::shared_ptr<const TensorReader>> readers;
  for (const VocabularyInput& input : merge.inputs) {
    Tensor loaded = load(input.folder + "/model.safetensors", tensor);
    readers.push_back(std::make_shared<ArrayReader>(loaded.shape, loaded.values));
  }
  return make_row_reader(merge.merged.maps[model], readers, model);
}

const std::string& file_text(const MergedVocabulary& merged, const std::string& name) {
  for (const SideFile& file : merged.files) {
    if (file.name == name) return file.text;
  }
  throw Failure(Error{"no file " + name});
}

std::map<std::string, std::int64_t> vocabulary_of(const MergedVocabulary& merged) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("out"));
  or_throw(write_text_atomically(*env, "out/tokenizer.json", file_text(merged, "tokenizer.json")));
  const ModelVocabulary read = or_throw(read_model_vocabulary(*env, "out", "out", merged.num_rows));
  return {read.ids.begin(), read.ids.end()};
}

class MergedVocabularyGolden : public testing::TestWithParam<std::string> {};

TEST_P(MergedVocabularyGolden, HasMergekitsTokensAndRows) {
  const std::string name = GetParam();
  const Case merge = merge_case(name);
  const Json expected = or_throw(read_json_file(real_env(), kGolden + "expected/" + name + ".json"));
  // mergekit drops the rows that plain has beyond its tokenizer.
  const std::int64_t their_rows = expected["vocab_size"].get<std::int64_t>();
  const bool is_plain = name == "base" || name == "base_tokens";
  EXPECT_EQ(merge.merged.num_rows, is_plain ? rows_of("models/plain") : their_rows);
  std::map<std::string, std::int64_t> theirs;
  for (const auto& [token, id] : expected["vocabulary"].items()) theirs.emplace(token, id.get<std::int64_t>());
  const std::map<std::string, std::int64_t> ours = vocabulary_of(merge.merged);
  ASSERT_EQ(ours.size(), theirs.size());
  for (const char* tensor : {"model.embed_tokens.weight", "lm_head.weight"}) {
    const Tensor golden = load(kGolden + "expected/" + name + ".safetensors", tensor);
    const std::int64_t width = golden.shape[1];
    std::vector<std::vector<float>> parts;
    for (std::size_t model = 0; model < merge.inputs.size(); ++model) {
      const auto reader = merged_reader(merge, tensor, static_cast<int>(model));
      ASSERT_EQ(reader->shape(), (Shape{merge.merged.num_rows, width}));
      parts.push_back(read_all(*reader, 7));  // blocks that end inside rows
      EXPECT_EQ(parts.back(), read_all(*reader, 1000));
    }
    double sum_of_weights = 0;
    for (std::size_t model = 0; model < parts.size(); ++model) sum_of_weights += kWeights[model];
    const auto compare = [&](std::int64_t our_row, std::int64_t their_row, const std::string& what, double slack = 0) {
      for (std::int64_t column = 0; column < width; ++column) {
        double mean = 0, size = 0;
        for (std::size_t model = 0; model < parts.size(); ++model) {
          const double term = kWeights[model] * parts[model][our_row * width + column] / sum_of_weights;
          mean += term;
          size += std::abs(term);
        }
        // mergekit rounds each weight, product and sum, the mean of owners and the quotient: under ten roundings.
        EXPECT_NEAR(golden.values[their_row * width + column], mean, 10 * size * std::ldexp(1.0, -24) + slack)
            << name << " " << tensor << " " << what << " column " << column;
      }
    };
    for (const auto& [token, id] : theirs) {
      ASSERT_TRUE(ours.contains(token)) << token;
      // mergekit adds the recipe's tokens to the base's tokenizer before it looks which tokens the base has, and so
      // takes the base's row of padding for that of a new token.
      if (name == "base_tokens" && token == "<think>") continue;
      compare(ours.at(token), id, token);
    }
    // The mean of all rows in f32: a rounding for each row, of sums no larger than rows times the largest element.
    double largest = 0;
    for (const float value : golden.values) largest = std::max(largest, std::abs(static_cast<double>(value)));
    const double slack = largest * static_cast<double>(merge.merged.num_tokens) * std::ldexp(1.0, -24);
    for (std::int64_t row = merge.merged.num_tokens; row < their_rows; ++row) compare(row, row, "padding", slack);
  }
}

INSTANTIATE_TEST_SUITE_P(Recipes, MergedVocabularyGolden,
                         testing::Values("union", "base", "model", "union_padded", "tokens", "base_tokens",
                                         "unigram_union"),
                         [](const auto& info) { return info.param; });

TEST(VocabularyMerge, KeepsEveryIdOfTheBaseInAUnion) {
  const Case merge = merge_case("union");
  const ModelVocabulary base =
      or_throw(read_model_vocabulary(real_env(), merge.inputs[0].folder, "plain", merge.inputs[0].num_rows));
  const auto ours = vocabulary_of(merge.merged);
  for (const auto& [token, id] : base.ids) EXPECT_EQ(ours.at(token), id) << token;
}

TEST(VocabularyMerge, KeepsPaddingRows) {
  const Case kept = merge_case("base");
  EXPECT_EQ(kept.merged.num_rows, rows_of("models/plain"));
  // The base's own rows come through bit for bit, padding included.
  const Tensor own = load(kept.inputs[0].folder + "/model.safetensors", "lm_head.weight");
  EXPECT_TRUE(kept.merged.maps[0].is_identity(0, rows_of("models/plain")));
  EXPECT_EQ(read_all(*merged_reader(kept, "lm_head.weight", 0), 11), own.values);
}

TEST(VocabularyMerge, WritesATokenizerThatSkeinReadsAndThatSpellsTextsAsTheBaseDoes) {
  const Case merge = merge_case("union");
  const auto ours = or_throw(tokenizer_from_json(file_text(merge.merged, "tokenizer.json"),
                                                 file_text(merge.merged, "tokenizer_config.json"), "union"));
  const auto base = or_throw(load_tokenizer(real_env(), merge.inputs[0].folder));
  for (const char* text : {"the cat sat on the mat", "then a hen ran <|end|>"})
    EXPECT_EQ(ours->encode(text), base->encode(text));
  const auto ids = vocabulary_of(merge.merged);
  EXPECT_THAT(ours->encode("<think><tool>"),
              testing::ElementsAre(static_cast<TokenId>(ids.at("<think>")), static_cast<TokenId>(ids.at("<tool>"))));
  // "else" is a word of the other model only, made by its own merges.
  EXPECT_THAT(ours->encode("else"), testing::ElementsAre(static_cast<TokenId>(ids.at("else"))));
}

TEST(VocabularyMerge, ExtendsAUnigramTableInItsOrder) {
  const Case merge = merge_case("unigram_union");
  const auto ours = or_throw(tokenizer_from_json(file_text(merge.merged, "tokenizer.json"),
                                                 file_text(merge.merged, "tokenizer_config.json"), "union"));
  const auto ids = vocabulary_of(merge.merged);
  for (const auto& [token, id] : ids) EXPECT_EQ(ours->token(static_cast<TokenId>(id)), token);
  EXPECT_THAT(ours->encode("<tool>"), testing::ElementsAre(static_cast<TokenId>(ids.at("<tool>"))));
}

TEST(VocabularyMerge, SaysWhatItDid) {
  const Case merge = merge_case("tokens");
  EXPECT_EQ(merge.merged.report.kept, 25);
  EXPECT_EQ(merge.merged.report.added, 44 - 25);
  EXPECT_EQ(merge.merged.report.dropped, 0);
  EXPECT_EQ(merge.merged.report.zero, 1);
  EXPECT_GT(merge_case("base").merged.report.dropped, 0);
}

Status status_of(const TokenizerRecipe& recipe, const std::vector<std::string>& models, Env& env = real_env(),
                 const std::string& folder = kGolden + "models/") {
  std::vector<VocabularyInput> inputs;
  for (const std::string& model : models) {
    inputs.push_back({.ref = {.path = model},
                      .folder = folder + model,
                      .num_rows = folder == kGolden + "models/" ? rows_of("models/" + model) : 1000});
  }
  const auto merged = merge_vocabularies(env, recipe, inputs, 0, "recipe.yml");
  return merged.ok() ? Status() : Status(merged.error());
}

TEST(VocabularyMerge, RefusesWhatItCannotDoByName) {
  TokenizerRecipe recipe{.from = TokenizerRecipe::From::kUnion};
  EXPECT_THAT(status_of(recipe, {"plain", "unigram"}).error().message, HasSubstr("a BPE model; they have no union"));
  recipe.tokens = {{"<x>", TokenRow{.force = true}}};
  EXPECT_THAT(status_of(recipe, {"plain", "tools"}).error().message, HasSubstr("\"<x>\" is forced but has no source"));
  recipe.tokens = {{"<x>", {.kind = TokenRow::Kind::kTokenId, .model = {.path = "plain"}, .token_id = 30}}};
  EXPECT_THAT(status_of(recipe, {"plain", "tools"}).error().message, HasSubstr("whose embedding has 30 rows"));
  recipe.tokens = {{"<x>", {.kind = TokenRow::Kind::kToken, .model = {.path = "plain"}, .token = "zzz"}}};
  EXPECT_THAT(status_of(recipe, {"plain", "tools"}).error().message, HasSubstr("which has no such token"));
  recipe.tokens = {{"<x>", TokenRow{.kind = TokenRow::Kind::kModel, .model = {.path = "elsewhere"}}}};
  EXPECT_THAT(status_of(recipe, {"plain", "tools"}).error().message, HasSubstr("is not one of the recipe's models"));
}

TEST(VocabularyMerge, CopiesASentencePieceModelButMakesNoUnionOfIt) {
  const auto env = make_memory_env();
  const std::string model =
      or_throw(read_text_file(real_env(), std::string(SKEIN_SOURCE_DIR) + "/tests/golden/tokenizer/sp_unigram.model"));
  for (const char* folder : {"a", "b"}) {
    or_throw(env->make_folders(folder));
    or_throw(write_text_atomically(*env, join_path(folder, "tokenizer.model"), model));
  }
  TokenizerRecipe recipe{.from = TokenizerRecipe::From::kBase};
  const std::vector<VocabularyInput> inputs = {{.ref = {.path = "a"}, .folder = "a", .num_rows = 5000},
                                               {.ref = {.path = "b"}, .folder = "b", .num_rows = 5000}};
  const MergedVocabulary merged = or_throw(merge_vocabularies(*env, recipe, inputs, 0, "recipe.yml"));
  EXPECT_EQ(file_text(merged, "tokenizer.model"), model);
  EXPECT_TRUE(merged.maps[1].is_identity(1, 5000));
  recipe.from = TokenizerRecipe::From::kUnion;
  EXPECT_THAT(merge_vocabularies(*env, recipe, inputs, 0, "recipe.yml").error().message,
              HasSubstr("has a SentencePiece model only"));
}

TEST(VocabularyMerge, LeavesOutTokensThatHaveNoRow) {
  TokenizerRecipe recipe{.from = TokenizerRecipe::From::kBase};
  std::vector<VocabularyInput> inputs = {
      {.ref = {.path = "tools"}, .folder = kGolden + "models/tools", .num_rows = 20},
      {.ref = {.path = "plain"}, .folder = kGolden + "models/plain", .num_rows = 30}};
  const MergedVocabulary merged = or_throw(merge_vocabularies(real_env(), recipe, inputs, 0, "recipe.yml"));
  EXPECT_EQ(merged.num_tokens, 20);
  EXPECT_EQ(vocabulary_of(merged).size(), 20U);
  or_throw(tokenizer_from_json(file_text(merged, "tokenizer.json"), "", "stripped"));
  EXPECT_THAT(merged.report.notes, testing::Contains(HasSubstr("7 tokens of tools have no row")));
}

// Every value of a tokenizer.json in turn replaced by one of another kind, or left out: an error or a merge, never an
// exception or a crash.
TEST(VocabularyMerge, TakesAnyLieOfATokenizerFileAsAnError) {
  const auto env = make_memory_env();
  for (const char* folder : {"a", "b"}) or_throw(env->make_folders(folder));
  const auto put = [&](const std::string& folder, const std::string& text) {
    or_throw(write_text_atomically(*env, folder + "/tokenizer.json", text));
  };
  const std::string other = or_throw(read_text_file(real_env(), kGolden + "models/other/tokenizer.json"));
  int merged = 0, refused = 0;
  for (const char* name : {"tools", "unigram"}) {
    const Json whole = or_throw(read_json_file(real_env(), kGolden + "models/" + name + "/tokenizer.json"));
    const Json flat = whole.flatten();
    const Json lies[] = {nullptr, "word", -1, 1e300, Json::array(), Json::object(), Json::array({1, 2}), true};
    for (const bool is_base : {true, false}) {
      put(is_base ? "b" : "a", other);
      int at = 0;
      for (const auto& [path, value] : flat.items()) {
        for (auto pointer = Json::json_pointer(path); !pointer.empty(); pointer.pop_back()) {
          Json lie = whole;
          lie[pointer] = lies[static_cast<std::size_t>(at++) % std::size(lies)];
          put(is_base ? "a" : "b", lie.dump());
          const std::vector<VocabularyInput> inputs = {{.ref = {.path = "a"}, .folder = "a", .num_rows = 26},
                                                       {.ref = {.path = "b"}, .folder = "b", .num_rows = 26}};
          const TokenizerRecipe recipe{.from = TokenizerRecipe::From::kUnion};
          ++(merge_vocabularies(*env, recipe, inputs, 0, "recipe.yml").ok() ? merged : refused);
        }
      }
    }
  }
  EXPECT_GT(merged, 100);
  EXPECT_GT(refused, 100);
}

TEST(EmbeddingRows, TakesTheNamesOfEmbeddingsAndHeadsOnly) {
  for (const char* name :
       {"model.embed_tokens.weight", "lm_head.weight", "transformer.wte.weight", "shared.weight", "output.weight"})
    EXPECT_TRUE(has_row_per_token(name)) << name;
  for (const char* name :
       {"model.norm.weight", "bert.layer.0.attention.output.weight", "model.layers.0.mlp.lm_head_weight"})
    EXPECT_FALSE(has_row_per_token(name)) << name;
}

}  // namespace
}  // namespace skein::merge
