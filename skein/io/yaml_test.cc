#include "skein/io/yaml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "skein/base/concat.h"

namespace skein {
namespace {

using testing::HasSubstr;

YamlNode parsed(const std::string& text) {
  auto documents = parse_yaml(text, "t.yml");
  EXPECT_TRUE(documents.ok()) << documents.error().message;
  return documents.ok() && documents->size() == 1 ? (*documents)[0] : YamlNode{};
}

std::string error_of(const std::string& text, const YamlLimits& limits = {}) {
  const auto documents = parse_yaml(text, "t.yml", limits);
  return documents.ok() ? "no error" : documents.error().message;
}

TEST(Yaml, ReadsScalarsListsAndMappingsWithTheirLines) {
  const YamlNode root = parsed("a: 1\nb:\n  - x\n  - \"yes\"\nc: {d: ~}\n");
  ASSERT_EQ(root.members.size(), 3u);
  EXPECT_EQ(yaml_integer(*root.find("a")), 1);
  ASSERT_EQ(root.find("b")->items.size(), 2u);
  EXPECT_EQ(root.find("b")->items[1].line, 4);
  EXPECT_FALSE(yaml_bool(root.find("b")->items[1]).has_value()) << "quoted";
  EXPECT_TRUE(root.find("c")->find("d")->is_null());
  EXPECT_EQ(root.find("nothing"), nullptr);
}

TEST(Yaml, TakesNumbersAsYaml11AndPydanticDo) {
  EXPECT_EQ(yaml_number(parsed("1e-5")), 1e-5) << "a string to PyYAML, a number to mergekit";
  EXPECT_EQ(yaml_number(parsed("+0.5")), 0.5);
  EXPECT_EQ(yaml_number(parsed("\"0.25\"")), 0.25);
  EXPECT_EQ(yaml_number(parsed("1_000")), 1000);
  EXPECT_EQ(yaml_number(parsed(".5x")), std::nullopt);
  EXPECT_EQ(yaml_number(parsed("inf")), std::nullopt);
  EXPECT_EQ(yaml_bool(parsed("Yes")), true);
  EXPECT_EQ(yaml_bool(parsed("off")), false);
}

TEST(Yaml, KeepsDocumentsApart) {
  const auto documents = parse_yaml("a: 1\n---\nb: 2\n---\n", "t.yml");
  ASSERT_TRUE(documents.ok());
  ASSERT_EQ(documents->size(), 2u) << "an empty one is left out";
  EXPECT_NE((*documents)[1].find("b"), nullptr);
  EXPECT_EQ((*documents)[1].line, 3);
}

TEST(Yaml, CopiesAliasesAndMergesMappings) {
  const YamlNode root = parsed("base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  y: 3\nlist: [*b]\n");
  EXPECT_EQ(yaml_integer(*root.find("more")->find("x")), 1);
  EXPECT_EQ(yaml_integer(*root.find("more")->find("y")), 3) << "its own wins";
  EXPECT_EQ(yaml_integer(*root.find("list")->items[0].find("y")), 2);
}

TEST(Yaml, EndsABombOfAliasesAsAnError) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    bomb += concat("a", i, ": &a", i, " [");
    for (int j = 0; j < 10; ++j) bomb += concat(j == 0 ? "" : ", ", "*a", i - 1);
    bomb += "]\n";
  }
  EXPECT_THAT(error_of(bomb), HasSubstr("more than 200000 values"));
}

TEST(Yaml, RefusesDepthSizeTagsAndRepeatedKeysByLine) {
  EXPECT_THAT(error_of(std::string(1000, '[')), HasSubstr("nested more than 64 deep"));
  EXPECT_THAT(error_of("a: b", {.max_bytes = 3}), HasSubstr("at most 3"));
  EXPECT_THAT(error_of("a: 1\nb: !!python/object/apply:os.system [ls]\n"), HasSubstr("t.yml, line 2"));
  EXPECT_THAT(error_of("a: 1\nb: 2\na: 3\n"), testing::AllOf(HasSubstr("line 3"), HasSubstr("twice")));
  EXPECT_THAT(error_of("a: [1, 2\nb: 3\n"), HasSubstr("line 2"));
  EXPECT_THAT(error_of("[a]: 1"), HasSubstr("a word was expected"));
  EXPECT_THAT(error_of("a: *nobody"), HasSubstr("no anchor &nobody"));
  EXPECT_THAT(error_of("a: \xff\xfe"), HasSubstr("t.yml"));
}

}  // namespace
}  // namespace skein
