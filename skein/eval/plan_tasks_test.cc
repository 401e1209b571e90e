#include "skein/eval/plan_tasks.h"

#include <gmock/gmock.h>

#include "skein/base/concat.h"

namespace skein {
namespace {

using ::testing::HasSubstr;

Result<std::vector<AskedTask>> ask(const std::string& lines, const std::vector<PlanTask>& tasks) {
  const auto env = make_memory_env();
  or_throw(write_text_atomically(*env, "a.jsonl", lines));
  Plan plan;
  plan.path = "p.yml";
  plan.tasks = tasks;
  return read_plan_tasks(*env, plan);
}

std::string line(const std::string& id, const std::string& form, const std::string& task = "t") {
  return concat(R"({"input": "q", "target": "yes", "choices": ["no", "yes"], "id": ")", id, R"(", "template": ")", form,
                R"(", "task": ")", task, "\"}\n");
}

TEST(PlanTasks, LimitIdsAndKeepTheirTemplates) {
  const auto asked = or_throw(ask(line("1", "a") + line("1", "b") + line("2", "a") + line("2", "b") + line("3", "a"),
                                  {{.data = {"a.jsonl"}, .category = "c", .is_held_in = true, .limit = 2}}));
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(asked[0].examples.size(), 4u);
  EXPECT_EQ(asked[0].task.category, "c");
  EXPECT_TRUE(asked[0].task.is_held_in);
  EXPECT_DOUBLE_EQ(asked[0].chance, 0.5);
  EXPECT_DOUBLE_EQ(asked[0].majority, 1);
}

TEST(PlanTasks, KeepTheFirstTemplatesOfEachId) {
  const auto asked =
      or_throw(ask(line("1", "a") + line("1", "b") + line("2", "b") + line("2", "a") + line("2", "c"),
                   {{.data = {"a.jsonl"}, .templates = 2}, {.data = {"a.jsonl"}, .name = "one", .templates = 1}}));
  std::string kept;
  for (const Example& example : asked[0].examples) kept += example.id + example.template_name + " ";
  EXPECT_EQ(kept, "1a 1b 2b 2a ");
  EXPECT_EQ(asked[1].examples.size(), 2u);
}

TEST(PlanTasks, NumberExamplesThatCannotBeToldApart) {
  const auto asked = or_throw(ask(line("1", "a") + line("1", "a"), {{.data = {"a.jsonl"}}}));
  EXPECT_EQ(asked[0].examples[1].id, "1 #1");
}

TEST(PlanTasks, AreNamedByTheirExamplesOrByThePlan) {
  const std::string lines = line("1", "a", "x") + line("2", "a", "y");
  EXPECT_EQ(or_throw(ask(lines, {{.data = {"a.jsonl"}}})).size(), 2u);
  const auto named = or_throw(ask(lines, {{.data = {"a.jsonl"}, .name = "both", .metric = "exact_match"}}));
  ASSERT_EQ(named.size(), 1u);
  EXPECT_EQ(named[0].task.name, "both");
  EXPECT_EQ(named[0].examples[0].metric, "exact_match");
  EXPECT_THAT(ask(lines, {{.data = {"a.jsonl"}}, {.data = {"a.jsonl"}}}).error().message, HasSubstr("have the task x"));
}

}  // namespace
}  // namespace skein
