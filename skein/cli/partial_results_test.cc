#include "skein/cli/partial_results.h"

#include <gtest/gtest.h>

#include "skein/io/fault_env.h"

namespace skein {
namespace {

const Json kSettings = {{"method", "base"}};

Json line_of(int number) { return {{"id", number}}; }

TEST(PartialResults, WritesTheFileWithAllLinesAndNothingElse) {
  const auto env = make_memory_env();
  const auto results = or_throw(PartialResults::begin(*env, "out.jsonl", kSettings, false));
  or_throw(results->add_task("a", {line_of(1), line_of(2)}, {{"accuracy", 0.5}}));
  EXPECT_FALSE(env->exists("out.jsonl")) << "not before it is complete";
  or_throw(results->finish());
  EXPECT_EQ(or_throw(read_text_file(*env, "out.jsonl")), "{\"id\":1}\n{\"id\":2}\n");
  EXPECT_FALSE(env->exists("out.jsonl.partial"));
}

TEST(PartialResults, GoesOnAfterTheLastFinishedTaskAndDropsATornEnd) {
  const auto env = make_memory_env();
  or_throw(or_throw(PartialResults::begin(*env, "out.jsonl", kSettings, false))
               ->add_task("a", {line_of(1)}, {{"accuracy", 1.0}}));
  {
    const auto torn = or_throw(env->open_for_append("out.jsonl.partial"));
    const std::string text = "{\"id\":7}\n{\"id\":";
    or_throw(torn->append(std::as_bytes(std::span(text))));
    or_throw(torn->close());
  }
  const auto results = or_throw(PartialResults::begin(*env, "out.jsonl", kSettings, false));
  ASSERT_NE(results->summary_of("a"), nullptr);
  EXPECT_EQ(*results->summary_of("a"), (Json{{"accuracy", 1.0}}));
  EXPECT_EQ(results->summary_of("b"), nullptr);
  or_throw(results->add_task("b", {line_of(2)}, {{"accuracy", 0.0}}));
  or_throw(results->finish());
  EXPECT_EQ(or_throw(read_text_file(*env, "out.jsonl")), "{\"id\":1}\n{\"id\":2}\n");
}

TEST(PartialResults, StartsAnewUnderOtherSettings) {
  const auto env = make_memory_env();
  or_throw(or_throw(PartialResults::begin(*env, "out.jsonl", kSettings, false))
               ->add_task("a", {line_of(1)}, {{"accuracy", 1.0}}));
  const auto results = or_throw(PartialResults::begin(*env, "out.jsonl", {{"method", "routed"}}, false));
  EXPECT_EQ(results->summary_of("a"), nullptr);
}

TEST(PartialResults, RefusesAnExistingFileUnlessTold) {
  const auto env = make_memory_env();
  or_throw(write_text_atomically(*env, "out.jsonl", "old\n"));
  EXPECT_FALSE(PartialResults::begin(*env, "out.jsonl", kSettings, false).ok());
  EXPECT_TRUE(PartialResults::begin(*env, "out.jsonl", kSettings, true).ok());
  EXPECT_EQ(or_throw(read_text_file(*env, "out.jsonl")), "old\n") << "kept until the new one is complete";
}

TEST(PartialResults, ReportsAFullDiskAndKeepsTheTasksBeforeIt) {
  const auto memory = make_memory_env();
  const auto env = make_fault_env(*memory);
  const auto results = or_throw(PartialResults::begin(*env, "out.jsonl", kSettings, false));
  or_throw(results->add_task("a", {line_of(1)}, {{"accuracy", 1.0}}));
  env->set_plan({.write_budget_bytes = 5});
  EXPECT_FALSE(results->add_task("b", {line_of(2)}, {{"accuracy", 1.0}}).ok());
  EXPECT_FALSE(results->finish().ok());
  EXPECT_FALSE(memory->exists("out.jsonl"));
  const auto later = or_throw(PartialResults::begin(*memory, "out.jsonl", kSettings, false));
  EXPECT_NE(later->summary_of("a"), nullptr);
  EXPECT_EQ(later->summary_of("b"), nullptr);
}

}  // namespace
}  // namespace skein
