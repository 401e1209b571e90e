// The cases of tests/recipes: a method, two or three tiny inputs, and the result worked out by hand.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "skein/io/yaml.h"
#include "skein/merge/methods/test_merge.h"

namespace skein::merge {
namespace {

ParameterValue value_of(const YamlNode& node) {
  if (const auto flag = yaml_bool(node)) return *flag;
  if (const auto number = yaml_number(node)) return *number;
  return node.text;
}

std::vector<float> numbers_of(const YamlNode& list) {
  std::vector<float> numbers;
  for (const YamlNode& item : list.items) numbers.push_back(static_cast<float>(*yaml_number(item)));
  return numbers;
}

struct RecipeCase {
  TestMerge merge;
  std::vector<TestTensor> tensors;
  std::vector<std::vector<float>> expected;
};

RecipeCase parsed(const std::string& text, const std::string& where) {
  const YamlNode root = or_throw(parse_yaml(text, where)).at(0);
  RecipeCase result{.merge = {.method = root.find("merge_method")->text}};
  if (const YamlNode* parameters = root.find("parameters")) {
    for (const YamlMember& member : parameters->members) result.merge.global[member.key] = value_of(member.value);
  }
  if (const YamlNode* models = root.find("models")) {
    for (const YamlNode& model : models->items) {
      for (const YamlMember& member : model.find("parameters")->members) {
        result.merge.per_model[member.key].push_back(*yaml_number(member.value));
      }
    }
  }
  for (const YamlNode& node : root.find("tensors")->items) {
    TestTensor tensor;
    for (const YamlNode& dimension : node.find("shape")->items) tensor.shape.push_back(*yaml_integer(dimension));
    if (const YamlNode* base = node.find("base")) tensor.base = numbers_of(*base);
    for (const YamlNode& model : node.find("models")->items) tensor.models.push_back(numbers_of(model));
    result.tensors.push_back(tensor);
    result.expected.push_back(numbers_of(*node.find("expect")));
  }
  return result;
}

TEST(RecipeCases, GiveWhatWasWorkedOutByHand) {
  std::set<std::string> methods;
  for (const auto& entry : std::filesystem::directory_iterator(SKEIN_SOURCE_DIR "/tests/recipes")) {
    SCOPED_TRACE(entry.path().filename().string());
    std::stringstream text;
    text << std::ifstream(entry.path()).rdbuf();
    const RecipeCase one = parsed(text.str(), entry.path().filename().string());
    methods.insert(one.merge.method);
    const auto got = one.merge.run_model(one.tensors);
    ASSERT_TRUE(got.ok()) << got.error().message;
    for (std::size_t t = 0; t < one.expected.size(); ++t) {
      ASSERT_EQ((*got)[t].size(), one.expected[t].size());
      for (std::size_t i = 0; i < one.expected[t].size(); ++i) {
        EXPECT_NEAR((*got)[t][i], one.expected[t][i], 1e-6) << "tensor " << t << ", element " << i;
      }
    }
  }
  // Random masks cannot be worked out by hand, and iso_cts is too long for it.
  for (const MethodInfo& method : all_methods()) {
    if (method.uses_random_numbers || method.name == "iso_cts" || method.name == "breadcrumbs_ties") continue;
    EXPECT_TRUE(methods.contains(method.name)) << "no case for " << method.name;
  }
}

}  // namespace
}  // namespace skein::merge
