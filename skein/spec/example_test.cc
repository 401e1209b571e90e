#include "skein/spec/example.h"

#include "skein/io/test_bytes.h"

namespace skein {
namespace {

using testing::expect_error;

Result<std::vector<Example>> read(const std::string& lines) {
  return read_examples(*testing::env_with("agnews.jsonl", lines), {"agnews.jsonl"});
}

TEST(Examples, ReadEveryField) {
  const auto examples = or_throw(read(
      R"({"id": "a-1", "template": "t", "input": "Is it?", "target": "no", "choices": ["yes", "no"], "task": "boolq", "metric": "rank_accuracy"})"
      "\n\n"
      R"({"input": "Say hi", "target": "hi", "references": ["hi", "hello"], "id": 7})"));
  ASSERT_EQ(examples.size(), 2u);
  EXPECT_EQ(examples[0].id, "a-1");
  EXPECT_EQ(examples[0].template_name, "t");
  EXPECT_EQ(examples[0].choices, (std::vector<std::string>{"yes", "no"}));
  EXPECT_EQ(examples[0].task, "boolq");
  EXPECT_EQ(examples[0].metric, "rank_accuracy");
  EXPECT_EQ(examples[1].id, "7");
  EXPECT_EQ(examples[1].task, "agnews");
  EXPECT_EQ(examples[1].references, (std::vector<std::string>{"hi", "hello"}));
}

TEST(Examples, AreNamedByFileAndLineWhereTheyHaveNoId) {
  const auto examples = or_throw(read("\n{\"input\": \"\", \"target\": \"x\"}"));
  EXPECT_EQ(examples[0].id, "agnews.jsonl:2");
}

TEST(Examples, TakeTheLastTurnOfAChatAsTarget) {
  const auto examples = or_throw(read(
      R"({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]})"));
  EXPECT_EQ(examples[0].target, "4");
  EXPECT_EQ(examples[0].input, "Be brief.\n2+2?");
  ASSERT_EQ(examples[0].messages.size(), 2u);
  EXPECT_EQ(examples[0].messages[1].role, "user");
}

TEST(Examples, NameTheLineThatIsWrong) {
  const std::string good = "{\"input\": \"a\", \"target\": \"b\"}\n";
  expect_error(read(good + R"({"input": "a"})"), "agnews.jsonl:2: no \"target\"");
  expect_error(read(good + R"({"target": "a"})"), "agnews.jsonl:2: no \"input\"");
  expect_error(read(good + R"({"input": 3, "target": "a"})"), "agnews.jsonl:2");
  expect_error(read(good + R"(["a", "b"])"), "agnews.jsonl:2: found array");
  expect_error(read(good + R"({"input": "a", "target": )"), "agnews.jsonl");
  expect_error(read(R"({"input": "a", "target": "b", "choices": ["c", "d"]})"), "none of the 2 choices");
  expect_error(read(R"({"input": "a", "target": "b", "choices": []})"), "choices");
  expect_error(read(R"({"input": "a", "target": "b", "choices": "b"})"), "choices");
  expect_error(read(R"({"input": "a", "target": "b", "references": [3]})"), "references");
  expect_error(read(R"({"input": "a", "target": "b", "metric": "rank_accuracy"})"), "nothing to rank");
  expect_error(read(R"({"messages": [{"role": "user", "content": "a"}]})"), "two turns");
  expect_error(read(R"({"messages": [{"role": "robot", "content": "a"}, {"role": "assistant", "content": "b"}]})"),
               "robot");
  expect_error(read(R"({"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]})"),
               "last turn");
  expect_error(read(R"({"messages": [], "target": "b"})"), "one form");
}

TEST(Examples, RefuseAnEmptyFile) {
  expect_error(read(""), "no example");
  expect_error(read("\n\n"), "no example");
}

TEST(Examples, KeepTheOrderOfTheFiles) {
  const auto env = make_memory_env();
  testing::put_file(*env, "b.jsonl", "{\"input\": \"1\", \"target\": \"x\"}");
  testing::put_file(*env, "a.jsonl", "{\"input\": \"2\", \"target\": \"x\"}");
  const auto examples = or_throw(read_examples(*env, {"b.jsonl", "a.jsonl"}));
  EXPECT_EQ(examples[0].input, "1");
  EXPECT_EQ(examples[1].task, "a");
}

}  // namespace
}  // namespace skein
