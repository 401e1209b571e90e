#include "skein/cli/library_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace skein {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

LibraryPlan plan_of(const std::string& text, std::uint64_t seed = 0) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("plans"));
  or_throw(write_text_atomically(*env, "plans/plan.yml", text));
  CommonOptions common;
  common.seed = seed;
  return read_library_plan(*env, "plans/plan.yml", common);
}

std::string refusal_of(const std::string& text) {
  try {
    plan_of(text);
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().kind, ErrorKind::kUsage) << failure.what();
    return failure.what();
  }
  return "taken";
}

constexpr const char* kPlan =
    "base: base.gguf\n"
    "out: pool/\n"
    "dtype: f32\n"
    "expert: {steps: 80, batch: 8, target_modules: [q_proj, v_proj]}\n"
    "gate: {steps: 60}\n"
    "experts:\n"
    "  - {name: a, data: a.jsonl}\n"
    "  - name: b\n"
    "    data: [b1.jsonl, /data/b2.jsonl]\n"
    "    valid: v.jsonl\n"
    "    expert: {steps: 20, lr: 2e-3, kind: ia3}\n";

TEST(LibraryPlan, OptionsAreThoseOfTheCommandsAndPathsThoseOfThePlansFolder) {
  const LibraryPlan plan = plan_of(kPlan, 7);
  EXPECT_EQ(plan.base, "plans/base.gguf");
  EXPECT_EQ(plan.out, "plans/pool");
  EXPECT_EQ(plan.work, "plans/pool.training");
  ASSERT_EQ(plan.experts.size(), 2u);
  const TrainFlags &a = *plan.experts[0].expert, &b = *plan.experts[1].expert;
  EXPECT_EQ(a.folder, "plans/pool.training/a");
  EXPECT_EQ(a.train.steps, 80);
  EXPECT_THAT(a.train.lora.target_kinds, ElementsAre("q_proj", "v_proj"));
  EXPECT_EQ(a.train.lora.seed, 7u);
  EXPECT_TRUE(a.train.resume);
  EXPECT_EQ(plan.experts[0].gate->train.steps, 60);
  EXPECT_EQ(plan.experts[0].gate->folder, a.folder);
  EXPECT_EQ(b.train.steps, 20);
  EXPECT_EQ(b.train.batch, 8);
  EXPECT_EQ(b.train.learning_rate, 2e-3);
  EXPECT_EQ(b.kind, "ia3");
  EXPECT_THAT(b.data, ElementsAre("plans/b1.jsonl", "/data/b2.jsonl"));
  EXPECT_THAT(b.train.valid, ElementsAre("plans/v.jsonl"));
  EXPECT_EQ(plan.experts[1].cost(), 20 * 8 + 60 * 16);
}

TEST(LibraryPlan, RefusesWithTheLine) {
  const std::string head = "base: b\nout: o\n";
  EXPECT_THAT(refusal_of("- a\n"), HasSubstr("expected a mapping"));
  EXPECT_THAT(refusal_of(head), HasSubstr("experts"));
  EXPECT_THAT(refusal_of(head + "expert:\n  stepz: 3\nexperts: [{name: a, data: d}]\n"),
              testing::AllOf(HasSubstr("line 5"), HasSubstr("stepz")));
  EXPECT_THAT(refusal_of(head + "colour: red\nexperts: [{name: a, data: d}]\n"),
              testing::AllOf(HasSubstr("line 3"), HasSubstr("colour")));
  EXPECT_THAT(refusal_of(head + "experts:\n  - {name: a, data: d}\n  - {name: a, data: d}\n"), HasSubstr("line 5"));
  EXPECT_THAT(refusal_of(head + "experts: [{name: ../a, data: d}]\n"), HasSubstr("letters"));
  EXPECT_THAT(refusal_of(head + "experts: [{name: a}]\n"), HasSubstr("no data"));
  EXPECT_THAT(refusal_of(head + "experts: [{name: a, data: d, expert: {out: x}}]\n"),
              HasSubstr("the plan or the command"));
  EXPECT_THAT(refusal_of(head + "experts: [{name: a, data: d, expert: {steps: 0}}]\n"), HasSubstr("at least 1"));
  EXPECT_THAT(refusal_of(head + "base_bits: 5\nexperts: [{name: a, data: d}]\n"), HasSubstr("8 or 4"));
}

TEST(DealOut, TheLargestFirstAndNothingTwice) {
  EXPECT_THAT(deal_out({3, 9, 1, 5}, 2), ElementsAre(ElementsAre(1), ElementsAre(3, 0, 2)));
  EXPECT_THAT(deal_out({2, 2, 2}, 1), ElementsAre(ElementsAre(0, 1, 2)));
  EXPECT_EQ(deal_out({1}, 3).size(), 3u);
}

}  // namespace
}  // namespace skein
