// The sentence encoder against transformers (tools/goldens/sentences.py), and what routes by it.
#include "skein/infer/sentence_encoder.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "skein/infer/text_hints.h"
#include "skein/infer/tiny_model.h"
#include "skein/io/safetensors.h"
#include "skein/nn/bridge.h"

namespace skein {
namespace {

using testing::failure_of;
using ::testing::HasSubstr;

const std::string kGolden = SKEIN_SOURCE_DIR "/tests/golden/";
const std::string kEncoder = kGolden + "models/bert";

struct Golden {
  std::unique_ptr<Checkpoint> file =
      or_throw(open_safetensors(real_env(), kGolden + "agreement/sentences.safetensors"));
  std::vector<std::string> texts =
      or_throw(read_json_file(real_env(), kGolden + "agreement/sentences.json")).get<std::vector<std::string>>();
};

TEST(WordPiece, GivesTheIdsOfTheTokenizersLibrary) {
  const Golden golden;
  const WordPiece tokenizer =
      or_throw(WordPiece::from_json(or_throw(read_text_file(real_env(), kEncoder + "/tokenizer.json")), "bert"));
  for (std::size_t i = 0; i < golden.texts.size(); ++i) {
    const std::string name = "ids." + std::to_string(i);
    std::vector<std::int64_t> want(static_cast<std::size_t>(golden.file->find(name)->shape[0]));
    or_throw(golden.file->read(name, DType::kI64, std::as_writable_bytes(std::span(want))));
    const std::vector<TokenId> got = tokenizer.encode(golden.texts[i], 40);
    EXPECT_EQ(std::vector<std::int64_t>(got.begin(), got.end()), want) << golden.texts[i];
  }
  EXPECT_EQ(tokenizer.encode("caf\xff\xc3\xa9", 40), tokenizer.encode("cafe", 40));  // what is no UTF-8 is left out
}

TEST(WordPiece, RefusesAnotherModelsTokenizer) {
  const auto refusal = [](const Json& json) { return WordPiece::from_json(json.dump(), "file").error().message; };
  Json json = or_throw(read_json_file(real_env(), kEncoder + "/tokenizer.json"));
  Json other = json;
  other["model"]["type"] = "BPE";
  EXPECT_THAT(refusal(other), HasSubstr("BPE"));
  other = json;
  other["normalizer"] = nullptr;
  EXPECT_THAT(refusal(other), HasSubstr("BertNormalizer"));
  other = json;
  other["model"]["vocab"].erase("[SEP]");
  EXPECT_THAT(refusal(other), HasSubstr("[SEP]"));
  other = json;
  other["model"]["vocab"]["a"] = -1;
  EXPECT_THAT(refusal(other), HasSubstr("-1"));
  EXPECT_THAT(refusal(Json::array()), HasSubstr("not a JSON object"));
}

TEST(SentenceEncoder, EmbeddingsEqualTransformers) {
  const Golden golden;
  const auto encoder = SentenceEncoder::load(real_env(), kEncoder);
  const at::Tensor want = load_tensor(*golden.file, "embeddings", {});
  const double error = load_tensor(*golden.file, "error_f32", {}).item<double>();
  // Another order of the same sums: another draw of the f32 error, within four times it (tests/agreement/golden.h).
  EXPECT_LT((encoder->embed(golden.texts) - want).abs().max().item<double>(), 4 * error);
  // Alone as in a batch, up to the order of sums in the products.
  EXPECT_LT((encoder->embed({golden.texts[3]})[0] - want[3]).abs().max().item<double>(), 4 * error);
  EXPECT_EQ(encoder->embed({}).size(0), 0);
}

TEST(SentenceEncoder, RefusesWhatIsNone) {
  EXPECT_THAT(failure_of([] { SentenceEncoder::load(real_env(), kGolden + "models/llama"); }), HasSubstr("llama"));
  EXPECT_THAT(failure_of([] { SentenceEncoder::load(real_env(), kGolden + "nowhere"); }), HasSubstr("no config.json"));
}

std::vector<float> bias_of(const HintSource& source, const Example& example) {
  return std::dynamic_pointer_cast<const RoutingHint>(source.hint(example))->bias;
}

TEST(TextHints, RetrievalNamesTheOwnerOfTheMostSimilarExample) {
  const auto encoder = SentenceEncoder::load(real_env(), kEncoder);
  const Example fox{.input = "the quick brown fox"}, sum{.input = "What is 3+4?"}, cafe{.input = "Is the café open?"};
  const std::vector<ExpertTexts> experts = {embed_expert(*encoder, {fox, cafe}, ""), embed_expert(*encoder, {sum}, "")};
  const float nothing = -std::numeric_limits<float>::infinity();
  const auto hints = retrieval_hints(encoder, experts, {true, true});
  EXPECT_EQ(bias_of(*hints, cafe), (std::vector<float>{0, nothing}));
  EXPECT_EQ(bias_of(*hints, sum), (std::vector<float>{nothing, 0}));
  EXPECT_EQ(bias_of(*retrieval_hints(encoder, experts, {true, false}), sum), (std::vector<float>{0, nothing}));
}

TEST(TextHints, DescriptionsAddTheirWeightedCosine) {
  const auto encoder = SentenceEncoder::load(real_env(), kEncoder);
  const Example fox{.input = "the quick brown fox", .choices = {"yes", "no"}};
  EXPECT_EQ(retrieval_text(fox), "Answer Choices: yes, no, Instance: the quick brown fox");
  const std::vector<ExpertTexts> experts = {embed_expert(*encoder, {}, "animals that jump"),
                                            embed_expert(*encoder, {fox}, "")};
  const std::vector<float> bias = bias_of(*description_hints(encoder, experts, 3), fox);
  const at::Tensor query = encoder->embed({retrieval_text(fox)})[0];
  EXPECT_NEAR(bias[0], 3 * encoder->embed({"animals that jump"})[0].dot(query).item<double>(), 1e-5);
  EXPECT_NEAR(bias[1], 3, 1e-5);  // its own only example
}

TEST(TextHints, TheFileIsReadAsItWasWritten) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("expert"));
  const auto encoder = SentenceEncoder::load(real_env(), kEncoder);
  const ExpertTexts texts = embed_expert(*encoder, {{.input = "one"}, {.input = "two"}}, "numbers");
  EXPECT_THAT(failure_of([&] { read_expert_texts(*env, "expert"); }), HasSubstr("gates fit --method retrieval"));
  or_throw(write_expert_texts(*env, "expert", texts));
  const ExpertTexts read = read_expert_texts(*env, "expert");
  EXPECT_TRUE(read.examples.equal(texts.examples) && read.description.equal(texts.description));
  or_throw(write_expert_texts(*env, "expert", {at::zeros({2, 3}), at::zeros({4})}));
  EXPECT_THAT(failure_of([&] { read_expert_texts(*env, "expert"); }), HasSubstr("damaged"));
}

}  // namespace
}  // namespace skein
