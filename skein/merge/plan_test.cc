#include "skein/merge/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/merge/executor.h"
#include "skein/merge/run_merge.h"
#include "skein/merge/test_models.h"

namespace skein::merge {
namespace {

using ::testing::HasSubstr;
using testing::TestTensor;
using testing::write_model;

class PlanTest : public ::testing::Test {
 protected:
  Result<std::unique_ptr<Plan>> plan(const std::string& text) {
    auto recipes = parse_recipes(text, "r.yml");
    EXPECT_TRUE(recipes.ok()) << recipes.error().message;
    recipe_ = recipes->back();
    std::vector<std::unique_ptr<Source>> sources;
    for (const auto& model : recipe_.models()) {
      SKEIN_ASSIGN(auto source, open_source(*env_, model, "."));
      sources.push_back(std::move(source));
    }
    return make_plan(recipe_, std::move(sources), {});
  }
  static const OutputTensor& tensor(const Plan& plan, const std::string& name) {
    for (const auto& one : plan.tensors) {
      if (one.name == name) return one;
    }
    ADD_FAILURE() << name;
    return plan.tensors[0];
  }
  std::string error_of(const std::string& text) {
    const auto planned = plan(text);
    return planned.ok() ? "no error" : planned.error().message;
  }

  std::unique_ptr<Env> env_ = make_memory_env();
  Recipe recipe_;
};

constexpr char kLinear[] =
    "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]\n";

TEST_F(PlanTest, GivesTensorsTheTypeThatHoldsTheirInputsUnlessTheRecipeSaysAnother) {
  write_model(*env_, "a", 1, {{"x", {4}, DType::kBF16}, {"y", {4}, DType::kBF16}, {"z", {4}, DType::kF32}});
  write_model(*env_, "b", 2, {{"x", {4}, DType::kBF16}, {"y", {4}, DType::kF16}, {"z", {4}, DType::kBF16}});
  const auto planned = plan(kLinear);
  ASSERT_TRUE(planned.ok()) << planned.error().message;
  EXPECT_EQ(tensor(**planned, "x").dtype, DType::kBF16);
  EXPECT_EQ(tensor(**planned, "y").dtype, DType::kF32) << "two 16-bit formats";
  EXPECT_EQ(tensor(**planned, "z").dtype, DType::kF32);
  EXPECT_EQ((*planned)->tensors[0].offset % 4, 0u) << "aligned to its type";
  const auto rounded = plan(std::string(kLinear) + "dtype: bfloat16\nout_dtype: float32\n");
  ASSERT_TRUE(rounded.ok());
  EXPECT_EQ(tensor(**rounded, "z").dtype, DType::kF32);
  EXPECT_EQ(tensor(**rounded, "z").models[0]->dtype(), DType::kBF16) << "inputs are cast as they are read";
  EXPECT_EQ((*rounded)->jobs[0].working_dtype, DType::kBF16);
}

TEST_F(PlanTest, ReadsF64AndF8AsF32) {
  or_throw(env_->make_folders("a"));
  const double wide[] = {0.5, -2};
  const std::uint8_t small[] = {0x38, 0xC0};  // e4m3: 1 and -2
  or_throw(write_safetensors(*env_, "a/model.safetensors",
                             {{"wide", TensorView{DType::kF64, {2}, std::as_bytes(std::span(wide))}},
                              {"small", TensorView{DType::kF8E4M3, {2}, std::as_bytes(std::span(small))}}}));
  const auto planned = plan("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\n");
  ASSERT_TRUE(planned.ok()) << planned.error().message;
  EXPECT_EQ(tensor(**planned, "wide").dtype, DType::kF32);
  EXPECT_EQ(tensor(**planned, "small").dtype, DType::kBF16);
  std::vector<std::byte> scratch;
  for (const char* name : {"wide", "small"}) {
    float values[2] = {};
    const auto& reader = *tensor(**planned, name).models[0];
    ASSERT_EQ(reader.dtype(), DType::kF32);
    or_throw(reader.read(0, 2, reinterpret_cast<std::byte*>(values), scratch));
    EXPECT_EQ(values[1], -2) << name;
  }
}

TEST_F(PlanTest, RefusesATensorThatAModelLacksAndSaysWhich) {
  write_model(*env_, "a", 1, {{"x", {4}}, {"extra", {4}}});
  write_model(*env_, "b", 2, {{"x", {4}}});
  EXPECT_THAT(error_of(kLinear), ::testing::AllOf(HasSubstr("tensor extra is in a and not in b")));
}

TEST_F(PlanTest, DropsBuffersThatLoadersMakeAnewAndListsThem) {
  write_model(*env_, "a", 1, {{"x", {4}}, {"model.layers.0.self_attn.rotary_emb.inv_freq", {4}}});
  write_model(*env_, "b", 2, {{"x", {4}}});
  const auto planned = plan(kLinear);
  ASSERT_TRUE(planned.ok()) << planned.error().message;
  ASSERT_EQ((*planned)->dropped.size(), 1u);
  EXPECT_EQ((*planned)->dropped[0].model, "a");
}

TEST_F(PlanTest, PassesATensorOfOneModelThroughWhereMergekitDoes) {
  write_model(*env_, "a", 1, {{"x", {4}}, {"extra", {4}}});
  write_model(*env_, "b", 2, {{"x", {4}}});
  const auto planned =
      plan("merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\nparameters: {t: 0.5}\n");
  ASSERT_TRUE(planned.ok()) << planned.error().message;
  EXPECT_TRUE(tensor(**planned, "extra").is_copy);
  EXPECT_FALSE(tensor(**planned, "x").is_copy);
}

TEST_F(PlanTest, MergesAHeadOfItsOwnWithTheSharedOneOfAnotherModel) {
  write_model(*env_, "a", 1, {{"model.embed_tokens.weight", {4, 2}}, {"lm_head.weight", {4, 2}}});
  write_model(*env_, "b", 2, {{"model.embed_tokens.weight", {4, 2}}});
  const auto planned = plan(kLinear);
  ASSERT_TRUE(planned.ok()) << planned.error().message;
  EXPECT_EQ(tensor(**planned, "lm_head.weight").models.size(), 2u);
}

TEST_F(PlanTest, RefusesShapesThatDifferAndMethodsWithTooFewModels) {
  write_model(*env_, "a", 1, {{"x", {4}}});
  write_model(*env_, "b", 2, {{"x", {5}}});
  EXPECT_THAT(error_of(kLinear), ::testing::AllOf(HasSubstr("(4"), HasSubstr("(5"), HasSubstr("tensor x")));
  write_model(*env_, "b", 2, {{"x", {4}}});
  EXPECT_THAT(error_of("merge_method: slerp\nbase_model: a\nmodels: [{model: a}]\nparameters: {t: 0.5}\n"),
              HasSubstr("exactly 1"));
  EXPECT_THAT(error_of("merge_method: ties\nmodels: [{model: a, parameters: {weight: 1}}]\n"),
              HasSubstr("needs a base_model"));
  EXPECT_THAT(error_of("merge_method: tise\nmodels: [{model: a}]\n"), HasSubstr("did you mean ties?"));
  EXPECT_THAT(error_of("merge_method: linear\nmodels: [{model: a}]\n"), HasSubstr("needs the parameter 'weight'"));
}

TEST_F(PlanTest, RefusesLayersThatAreNotThereAndModelsOfDifferentDepth) {
  write_model(*env_, "a", 1, testing::test_tensors(2));
  write_model(*env_, "b", 2, testing::test_tensors(3));
  EXPECT_THAT(error_of(kLinear), HasSubstr("use slices"));
  EXPECT_THAT(error_of("merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [1, 3]}]\n"),
              ::testing::AllOf(HasSubstr("line 3"), HasSubstr("has 2 layers")));
}

TEST_F(PlanTest, DealsTensorsOutToRanksOnceEach) {
  write_model(*env_, "a", 1, testing::test_tensors(5));
  write_model(*env_, "b", 2, testing::test_tensors(5));
  const auto planned = plan(kLinear);
  ASSERT_TRUE(planned.ok());
  std::vector<int> times((*planned)->tensors.size(), 0);
  for (int rank = 0; rank < 3; ++rank) {
    for (const std::size_t i : share_of_rank(**planned, rank, 3)) ++times[i];
  }
  EXPECT_THAT(times, ::testing::Each(1));
}

// Every byte of an input's header, and of its index, damaged in turn: an error or a merge, nothing else.
TEST_F(PlanTest, EndsInAnErrorOrAMergeWhateverByteOfAHeaderIsDamaged) {
  write_model(*env_, "a", 1, {{"x", {4}}, {"y", {2, 2}}});
  write_model(*env_, "b", 2, {{"x", {4}}, {"y", {2, 2}}});
  const std::string whole = or_throw(read_text_file(*env_, "a/model.safetensors"));
  or_throw(write_text_atomically(*env_, "r.yml", kLinear));
  int num_refused = 0;
  for (std::size_t i = 0; i + 16 < whole.size(); ++i) {
    for (const int flip : {1, 0x20, 0x80}) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ flip);
      or_throw(write_text_atomically(*env_, "a/model.safetensors", damaged));
      MergeRequest request;
      request.recipe_path = "r.yml";
      request.out = "out";
      const auto comm = make_single_comm();
      num_refused += run_merge(*env_, *comm, request).ok() ? 0 : 1;
      or_throw(env_->remove_tree("out"));
    }
  }
  EXPECT_GT(num_refused, 100);
}

}  // namespace
}  // namespace skein::merge
