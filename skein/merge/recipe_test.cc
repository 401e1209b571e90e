#include "skein/merge/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/merge/parameters.h"
#include "skein/merge/plan.h"

namespace skein::merge {
namespace {

using ::testing::HasSubstr;

Recipe parsed(const std::string& text) {
  auto recipes = parse_recipes(text, "r.yml");
  EXPECT_TRUE(recipes.ok()) << recipes.error().message;
  return recipes.ok() ? recipes->back() : Recipe{};
}

std::string error_of(const std::string& text) {
  const auto recipes = parse_recipes(text, "r.yml");
  return recipes.ok() ? "no error" : recipes.error().message;
}

double number_at(const Setting& setting, const std::string& tensor, double t) {
  const auto value = value_at(setting, ParameterSpec::Kind::kNumber, tensor, t);
  EXPECT_TRUE(value.has_value());
  return value ? std::get<double>(*value) : -1;
}

TEST(Recipe, ReadsMergekitsExampleWithGradientsFiltersAndBothKindsOfParameters) {
  const Recipe recipe = parsed(R"(models:
  - model: psmathur/orca_mini_v3_13b
    parameters:
      density: [1, 0.7, 0.1] # density gradient
      weight: 1.0
  - model: garage-bAInd/Platypus2-13B@v1
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1] # weight gradient
  - model: WizardLM/WizardMath-13B-V1.0+some/lora@abc
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: TheBloke/Llama-2-13B-fp16
parameters:
  normalize: true
  int8_mask: true
dtype: float16
)");
  ASSERT_EQ(recipe.modules.size(), 1u);
  const auto& models = recipe.modules[0].models;
  ASSERT_EQ(models.size(), 3u);
  EXPECT_EQ(models[1].model.revision, "v1");
  EXPECT_EQ(models[2].model.adapter, "some/lora");
  EXPECT_EQ(models[2].model.adapter_revision, "abc");
  EXPECT_EQ(recipe.dtype, DType::kF16);
  EXPECT_EQ(recipe.models().size(), 4u);
  EXPECT_EQ(recipe.models().back().path, "TheBloke/Llama-2-13B-fp16") << "a base not listed comes last";
  const Setting& density = models[0].parameters.at("density");
  EXPECT_DOUBLE_EQ(number_at(density, "x", 0), 1);
  EXPECT_DOUBLE_EQ(number_at(density, "x", 0.25), 0.85);
  EXPECT_DOUBLE_EQ(number_at(density, "x", 1), 0.1);
  const Setting& weight = models[2].parameters.at("weight");
  EXPECT_EQ(number_at(weight, "model.layers.0.mlp.up_proj.weight", 0), 0.5);
  EXPECT_EQ(number_at(weight, "model.norm.weight", 0), 0);
  EXPECT_THAT(recipe.warnings, ::testing::ElementsAre(HasSubstr("int8_mask"))) << "mergekit's dead key";
}

TEST(Recipe, StepsThroughListsOfWordsAndTruths) {
  const Recipe recipe =
      parsed("merge_method: x\nmodels: [{model: a, parameters: {p: [false, true, true], q: [one, two]}}]\n");
  const auto& settings = recipe.modules[0].models[0].parameters;
  const auto at = [&](const char* name, double t) {
    return *value_at(settings.at(name), ParameterSpec::Kind::kBool, "x", t);
  };
  EXPECT_EQ(std::get<bool>(at("p", 0.4)), false);
  EXPECT_EQ(std::get<bool>(at("p", 0.5)), true);
  EXPECT_EQ(std::get<std::string>(at("q", 0.99)), "one");
  EXPECT_EQ(std::get<std::string>(at("q", 1)), "two");
}

TEST(Recipe, PassesOverALevelWhoseFiltersDoNotFit) {
  const Recipe recipe =
      parsed("merge_method: x\nmodels: [{model: a, parameters: {w: {filter: mlp, value: 1}, e: []}}]\n");
  const auto& settings = recipe.modules[0].models[0].parameters;
  EXPECT_FALSE(value_at(settings.at("w"), ParameterSpec::Kind::kNumber, "attn", 0).has_value());
  EXPECT_FALSE(value_at(settings.at("e"), ParameterSpec::Kind::kNumber, "attn", 0).has_value()) << "an empty list too";
}

TEST(Recipe, ReadsSlicesModulesAndTokenizers) {
  const Recipe recipe = parsed(R"(merge_method: passthrough
modules:
  text_decoder:
    slices:
      - sources: [{model: a, layer_range: [0, 24]}, {model: b, layer_range: [8, 32]}]
        parameters: {scale: 0.5}
        base_model: b
        residual_weight: 0.1
  vision_tower:
    models: [{model: a}]
tokenizer:
  source: union
  pad_to_multiple_of: 64
  tokens:
    <|im_start|>: {source: a, force: true}
    <pad>: {source: {kind: zero}}
    <x>: {source: {kind: model_token, model: b, token_id: 7}}
chat_template: auto
)");
  ASSERT_EQ(recipe.modules.size(), 2u);
  EXPECT_EQ(recipe.modules[0].slices[0].sources[1].from, 8);
  EXPECT_EQ(recipe.modules[0].slices[0].base_model->path, "b");
  EXPECT_EQ(recipe.models().size(), 2u);
  ASSERT_TRUE(recipe.tokenizer.has_value());
  EXPECT_EQ(recipe.tokenizer->pad_to_multiple_of, 64);
  ASSERT_EQ(recipe.tokenizer->tokens.size(), 3u);
  EXPECT_TRUE(recipe.tokenizer->tokens[0].second.force);
  EXPECT_EQ(recipe.tokenizer->tokens[1].second.kind, TokenRow::Kind::kZero);
  EXPECT_EQ(recipe.tokenizer->tokens[2].second.token_id, 7);
  EXPECT_EQ(recipe.chat_template, "auto");
  EXPECT_THAT(recipe.warnings, ::testing::ElementsAre(HasSubstr("residual_weight")));
}

TEST(Recipe, NamesTheLineOfWhatIsWrong) {
  EXPECT_THAT(error_of("merge_method: x\nmodels: [{model: a}]\nbase_modle: b\n"),
              ::testing::AllOf(HasSubstr("r.yml, line 3"), HasSubstr("base_model?")));
  EXPECT_THAT(error_of("models: [{model: a}]\n"), HasSubstr("merge_method is missing"));
  EXPECT_THAT(error_of("merge_method: x\n"), HasSubstr("none of models, slices and modules"));
  EXPECT_THAT(error_of("merge_method: x\nmodels: [{model: a}]\nslices: []\n"), HasSubstr("more than one of"));
  EXPECT_THAT(error_of("merge_method: x\nmodels: [{model: a}, {model: a}]\n"), HasSubstr("listed twice"));
  EXPECT_THAT(error_of("merge_method: x\nmodels: [{model: a+b+c}]\n"), HasSubstr("two \"+\""));
  EXPECT_THAT(error_of("merge_method: x\nmodels: [{model: a}]\ndtype: int4\n"), HasSubstr("line 3"));
  EXPECT_THAT(error_of("merge_method: x\nslices: [{sources: [{model: a, layer_range: [4, 4]}]}]\n"),
              HasSubstr("holds no layer"));
  EXPECT_THAT(error_of("merge_method: x\nslices:\n- sources:\n  - {model: a, layer_range: [0, 4]}\n  - {model: b, "
                       "layer_range: [0, 5]}\n"),
              ::testing::AllOf(HasSubstr("line 5"), HasSubstr("all need the same number")));
  EXPECT_THAT(error_of("merge_method: x\nmodels: [{model: a, parameters: {w: {x: 1}}}]\n"),
              HasSubstr("unknown key \"x\""));
  EXPECT_THAT(error_of("merge_method: x\nmodels: [{model: a}]\ntokenizer_source: base\n"), HasSubstr("no base_model"));
  EXPECT_THAT(error_of("merge_method: x\nmodels: [{model: a}]\ntokenizer_source: union\ntokenizer: {source: union}\n"),
              HasSubstr("one was expected"));
}

TEST(Recipe, WarnsOfOptionsOfTheCommand) {
  const Recipe recipe = parsed("merge_method: x\nmodels: [{model: a}]\nrandom_seed: 1\nallow_crimes: true\n");
  EXPECT_EQ(recipe.warnings.size(), 2u);
}

TEST(Recipe, OrdersStagesAndRefusesCircles) {
  const std::string stages =
      "name: one\nmerge_method: x\nmodels: [{model: two}]\n---\nname: two\nmerge_method: x\nmodels: [{model: a}]\n---\n"
      "merge_method: x\nmodels: [{model: one}, {model: two}]\n---\nname: unused\nmerge_method: x\nmodels: [{model: "
      "a}]\n";
  const auto recipes = parse_recipes(stages, "r.yml");
  ASSERT_TRUE(recipes.ok());
  const auto order = stage_order(*recipes);
  ASSERT_TRUE(order.ok());
  EXPECT_THAT(*order, ::testing::ElementsAre(1u, 0u, 2u)) << "what the result does not need is left out";
  const auto circle = parse_recipes(
      "name: one\nmerge_method: x\nmodels: [{model: two}]\n---\nname: two\nmerge_method: x\n"
      "models: [{model: one}]\n",
      "r.yml");
  ASSERT_TRUE(circle.ok());
  EXPECT_FALSE(stage_order(*circle).ok());
}

// A method's parameters for one tensor, resolved over all four levels.
TEST(ParameterResolver, FollowsMergekitsPrecedence) {
  const Recipe recipe = parsed(R"(merge_method: ties
base_model: base
parameters: {weight: 0.1, density: 0.9, lambda: 0.5, normalize: false}
slices:
- sources:
  - {model: base, layer_range: [0, 2]}
  - {model: a, layer_range: [0, 2], parameters: {weight: 0.7, lambda: 9}}
  - {model: b, layer_range: [0, 2], parameters: {weight: {filter: mlp, value: 0.8}}}
  parameters: {weight: 0.3, lambda: [1, 3]}
)");
  const MethodInfo& ties = *find_method("ties");
  const OutputSlice& slice = recipe.modules[0].slices[0];
  TensorInputs tensor;
  tensor.name = "model.layers.1.attn.weight";
  tensor.t = 0.5;
  tensor.slice = &slice.parameters;
  tensor.module = &recipe.modules[0].parameters;
  tensor.inputs = {{1, "model.layers.1.attn.weight", false, &slice.sources[1].parameters},
                   {2, "model.layers.1.attn.weight", false, &slice.sources[2].parameters}};
  ParameterResolver resolver(recipe, ties);
  const auto parameters = resolver.resolve(tensor, {&tensor.inputs[0], &tensor.inputs[1]});
  ASSERT_TRUE(parameters.ok()) << parameters.error().message;
  EXPECT_EQ(parameters->number("weight", 0), 0.7) << "the source's own";
  EXPECT_EQ(parameters->number("weight", 1), 0.3) << "its filter does not fit: the slice's";
  EXPECT_EQ(parameters->number("density", 1), 0.9) << "the top level's";
  EXPECT_EQ(parameters->number("lambda"), 2) << "global ones are never taken from a source; a gradient at t = 0.5";
  EXPECT_FALSE(parameters->flag("normalize"));
  EXPECT_THAT(resolver.unused_filters(), ::testing::ElementsAre(HasSubstr("\"mlp\" of weight")));
  std::vector<std::string> warnings;
  EXPECT_TRUE(check_parameter_names(recipe, ties, warnings).ok());
  EXPECT_THAT(warnings, ::testing::ElementsAre(HasSubstr("lambda has no effect at a model")));
}

TEST(ParameterNames, AreErrorsWhenUnknownAndWarningsWhenAnotherMethods) {
  std::vector<std::string> warnings;
  const MethodInfo& linear = *find_method("linear");
  const Recipe other = parsed("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1, density: 0.5}}]\n");
  EXPECT_TRUE(check_parameter_names(other, linear, warnings).ok());
  EXPECT_THAT(warnings, ::testing::ElementsAre(HasSubstr("density has no effect")));
  const Recipe unknown = parsed("merge_method: linear\nmodels: [{model: a, parameters: {wieght: 1}}]\n");
  const Status status = check_parameter_names(unknown, linear, warnings);
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.error().message, HasSubstr("did you mean weight?"));
}

}  // namespace
}  // namespace skein::merge
