#include "skein/io/json.h"

#include "skein/io/test_bytes.h"

namespace skein {
namespace {

using testing::expect_error;

TEST(Json, ParsesEveryKindOfValue) {
  const std::string text =
      R"({"a": [1, -2, 2.5, true, null, "\u00e9"], "b": {"c": {}, "d": []}, "big": 18446744073709551615})";
  const Json document = or_throw(parse_json(text, "t"));
  EXPECT_EQ(document, Json::parse(text));  // nlohmann's own reader, without our checks
}

TEST(Json, KeepsTheOrderOfKeys) {
  EXPECT_EQ(or_throw(parse_json(R"({"z":1,"a":2,"m":3})", "t")).dump(), R"({"z":1,"a":2,"m":3})");
}

TEST(Json, NamesTheLineOfAnError) {
  expect_error(parse_json("{\n\"a\": 1,\n\"b\": oops\n}", "config.json"), "config.json:3: not valid JSON");
}

TEST(Json, RefusesWhatIsNotOneDocument) {
  expect_error(parse_json("", "t"), "it is empty");
  expect_error(parse_json(" \n", "t"), "it is empty");
  expect_error(parse_json("{\"a\": 1", "t"), "unexpected end of input");
  expect_error(parse_json("{} {}", "t"), "not valid JSON");
  expect_error(parse_json("[1,]", "t"), "not valid JSON");
  expect_error(parse_json("NaN", "t"), "not valid JSON");
  expect_error(parse_json("1e999", "t"), "not valid JSON");
}

TEST(Json, RefusesInvalidUtf8) {
  expect_error(parse_json("\"\xff\"", "t"), "not valid JSON");
  expect_error(parse_json("\"\\ud800\"", "t"), "not valid JSON");
  expect_error(parse_json("\"\xc0\x80\"", "t"), "not valid JSON");  // overlong
}

TEST(Json, RefusesDuplicateKeys) {
  expect_error(parse_json("{\"a\": 1,\n \"b\": 2, \"a\": 3}", "t"), "t:2: not valid JSON: the key \"a\" stands twice");
  EXPECT_TRUE(parse_json(R"({"a": {"a": 1}, "b": {"a": 1}})", "t").ok());
}

TEST(Json, RefusesDeepNesting) {
  EXPECT_TRUE(parse_json(std::string(128, '[') + std::string(128, ']'), "t").ok());
  expect_error(parse_json(std::string(129, '[') + std::string(129, ']'), "t"), "nested deeper than 128");
  expect_error(parse_json(std::string(1 << 20, '['), "t"), "nested deeper than 128");
}

TEST(Json, ReadsAnObjectOfManyKeysInReasonableTime) {
  std::string text = "{";
  for (int i = 0; i < 100000; ++i) text += "\"key" + std::to_string(i) + "\":" + std::to_string(i) + ",";
  text.back() = '}';
  EXPECT_EQ(or_throw(parse_json(text, "t")).size(), 100000u);  // a search per key would take a minute
}

TEST(JsonFields, GiveTheValueOrTheDefault) {
  const Json object = or_throw(parse_json(R"({"i": 3, "f": 2.5, "b": true, "s": "x", "n": null})", "t"));
  EXPECT_EQ(or_throw(json_integer(object, "i", std::nullopt, "t")), 3);
  EXPECT_EQ(or_throw(json_integer(object, "none", 7, "t")), 7);
  EXPECT_EQ(or_throw(json_integer(object, "n", 7, "t")), 7);
  EXPECT_EQ(or_throw(json_number(object, "f", std::nullopt, "t")), 2.5);
  EXPECT_EQ(or_throw(json_number(object, "i", std::nullopt, "t")), 3.0);
  EXPECT_TRUE(or_throw(json_bool(object, "b", std::nullopt, "t")));
  EXPECT_EQ(or_throw(json_string(object, "s", std::nullopt, "t")), "x");
}

TEST(JsonFields, NameTheKeyAndWhatWasExpected) {
  const Json object = or_throw(parse_json(R"({"i": 3, "f": 2.5, "s": "x", "big": 18446744073709551615})", "t"));
  expect_error(json_integer(object, "none", std::nullopt, "t"), "t: \"none\" is missing");
  expect_error(json_integer(object, "f", 1, "t"), "\"f\" is a fraction; an integer was expected");
  expect_error(json_integer(object, "big", 1, "t"), "at most 2^63 - 1");
  expect_error(json_number(object, "s", 1.0, "t"), "\"s\" is a string; a number was expected");
  expect_error(json_bool(object, "i", true, "t"), "\"i\" is an integer; true or false was expected");
  expect_error(json_string(object, "i", "", "t"), "\"i\" is an integer; a string was expected");
  expect_error(json_string(Json::array(), "i", "", "t"), "found an array; an object was expected");
}

}  // namespace
}  // namespace skein
