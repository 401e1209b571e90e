#include "skein/eval/task_files.h"

#include <gmock/gmock.h>

#include "skein/base/concat.h"

namespace skein {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Result<std::vector<Example>> read(const std::string& name, const std::string& text) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("d/sums"));
  or_throw(write_text_atomically(*env, "d/sums/" + name, text));
  return read_task_files(*env, {"d/sums/" + name});
}

TEST(BigBenchTask, BecomesPromptsWithItsPrefixesAndChoices) {
  const auto examples = or_throw(read("task.json", R"({
    "name": "colours", "task_prefix": "Look.", "preferred_score": "multiple_choice_grade",
    "examples": [{"input": "The sky?", "target_scores": {"red": 0, "blue": 1, "azure": 1}},
                 {"input": "Grass?", "target_scores": {"green": 1.0, "red": 0.0}}]})"));
  ASSERT_EQ(examples.size(), 2u);
  EXPECT_EQ(examples[0].input, "Look.\nQ: The sky?\n  choice: red\n  choice: blue\n  choice: azure\nA:");
  EXPECT_EQ(examples[0].separator, " ");
  EXPECT_THAT(examples[0].choices, ElementsAre("red", "blue", "azure"));
  EXPECT_EQ(examples[0].target, "blue");
  EXPECT_THAT(examples[0].references, ElementsAre("blue", "azure"));
  EXPECT_EQ(examples[1].target, "green");
  EXPECT_TRUE(examples[1].references.empty());
  EXPECT_EQ(examples[1].task, "colours");
  EXPECT_EQ(examples[1].id, "colours-1");
  EXPECT_EQ(examples[1].metric, "");
}

TEST(BigBenchTask, OfTextsTakesTheLongestTargetAndItsMetric) {
  const auto examples = or_throw(read("task.json", R"({
    "preferred_score": "rougeLsum", "example_input_prefix": "", "example_output_prefix": "\nAnswer:",
    "examples": [{"input": "1 + 1", "target": ["2", "two"]}, {"input": "0", "target": "none"}]})"));
  EXPECT_EQ(examples[0].input, "1 + 1\nAnswer:");
  EXPECT_EQ(examples[0].separator, "");
  EXPECT_EQ(examples[0].target, "two");
  EXPECT_THAT(examples[0].references, ElementsAre("2", "two"));
  EXPECT_EQ(examples[0].metric, "rouge_l");
  EXPECT_EQ(examples[0].task, "sums");  // the folder's name
}

TEST(BigBenchTask, SaysWhatIsWrong) {
  const auto error = [](const std::string& text) { return read("task.json", text).error().message; };
  EXPECT_THAT(error("{}"), HasSubstr("d/sums/task.json: no list of \"examples\""));
  EXPECT_THAT(error(R"({"examples": [3]})"), HasSubstr("example 0 is 3"));
  EXPECT_THAT(error(R"({"examples": [{"input": "a"}]})"), HasSubstr("example 0: neither \"target\" nor"));
  EXPECT_THAT(error(R"({"examples": [{"input": "a", "target": []}]})"), HasSubstr("\"target\" is []"));
  EXPECT_THAT(error(R"({"examples": [{"input": "a", "target_scores": {"x": "y"}}]})"), HasSubstr("\"x\" is no number"));
  EXPECT_THAT(error(R"({"examples": [{"input": "a", "target_scores": []}]})"), HasSubstr("\"target_scores\" is []"));
}

constexpr char kChoiceLine[] =
    R"({"doc_id": 4, "target": "1", "filter": "none", "arguments": {"gen_args_0": {"arg_0": "Q: sky?", "arg_1": " red"}, )"
    R"("gen_args_1": {"arg_0": "Q: sky?", "arg_1": " blue"}}})";

TEST(LmEvalSamples, BecomePromptsAndChoices) {
  const auto examples =
      or_throw(read("samples_sky_2026-01-02T03-04-05.jsonl", concat(kChoiceLine, "\n", kChoiceLine, "\n")));
  ASSERT_EQ(examples.size(), 2u);
  EXPECT_EQ(examples[0].task, "sky");
  EXPECT_EQ(examples[0].id, "4");
  EXPECT_EQ(examples[0].input, "Q: sky?");
  EXPECT_EQ(examples[0].separator, " ");
  EXPECT_THAT(examples[0].choices, ElementsAre("red", "blue"));
  EXPECT_EQ(examples[0].target, "blue");
}

TEST(LmEvalSamples, OfGeneratedAnswersAreTakenOncePerDocument) {
  const auto line = [](const std::string& filter) {
    return concat(R"({"doc_id": 0, "target": "42", "filter": ")", filter,
                  R"(", "arguments": [["6 * 7 =", {"until": ["\n"]}]]})", "\n");
  };
  const auto examples = or_throw(read("x.jsonl", line("strict") + line("flexible")));
  ASSERT_EQ(examples.size(), 1u);
  EXPECT_EQ(examples[0].input, "6 * 7 =");
  EXPECT_EQ(examples[0].target, "42");
  EXPECT_EQ(examples[0].metric, "exact_match");
  EXPECT_TRUE(examples[0].choices.empty());
}

TEST(LmEvalSamples, SayWhatIsWrong) {
  const auto error = [](const std::string& arguments, const std::string& target) {
    return read("x.jsonl", concat(R"({"doc_id": 0, "target": )", target, R"(, "arguments": )", arguments, "}\n"))
        .error()
        .message;
  };
  EXPECT_THAT(error("[]", "0"), HasSubstr("x.jsonl:1: \"arguments\" is empty"));
  EXPECT_THAT(error("[3]", "0"), HasSubstr("a request of \"arguments\" is 3"));
  EXPECT_THAT(error(R"([["a", " b"], ["c", " d"]])", "0"), HasSubstr("not continuations of one prompt"));
  EXPECT_THAT(error(R"([["a"]])", "0"), HasSubstr("not continuations of one prompt"));
  EXPECT_THAT(error(R"([["a", " b"], ["a", " d"]])", "2"), HasSubstr("\"target\" is 2"));
  EXPECT_THAT(error(R"([["a", " b"], ["a", " d"]])", "[1]"), HasSubstr("\"target\" is [1]"));
}

TEST(ReadTaskFiles, TakesSkeinsOwnLines) {
  const auto examples = or_throw(read("own.jsonl", R"({"input": "a", "target": "b"})"
                                                   "\n"));
  EXPECT_EQ(examples[0].task, "own");
  EXPECT_FALSE(examples[0].separator.has_value());
}

}  // namespace
}  // namespace skein
