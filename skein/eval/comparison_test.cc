#include "skein/eval/comparison.h"

#include <gmock/gmock.h>

#include <cmath>

#include "skein/base/concat.h"

namespace skein {
namespace {

using ::testing::HasSubstr;

std::vector<ScoredExample> answers(const std::string& task, const std::string& bits, int num_templates = 1) {
  std::vector<ScoredExample> examples;
  for (std::size_t i = 0; i < bits.size(); ++i)
    examples.push_back({task, concat("t", i % static_cast<std::size_t>(num_templates)),
                        concat("id", i / static_cast<std::size_t>(num_templates)), bits[i] - '0' + 0.0});
  return examples;
}

std::vector<ScoredExample> joined(std::vector<ScoredExample> a, const std::vector<ScoredExample>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

const GroupResult& group(const Comparison& comparison, const std::string& name) {
  for (const GroupResult& result : comparison.groups) {
    if (result.group.name == name) return result;
  }
  throw Failure({"no group " + name});
}

TEST(CompareMethods, AveragesTasksWithinCategoriesFirst) {
  const auto comparison = or_throw(
      compare_methods({"base"}, {joined(joined(answers("a", "1111"), answers("b", "1100")), answers("c", "0000"))},
                      {{"a", "one"}, {"b", "one"}, {"c", "two"}}, {.num_resamples = 10, .reference = "base"}));
  EXPECT_DOUBLE_EQ(group(comparison, "one").scores[0].value, 0.75);
  EXPECT_DOUBLE_EQ(group(comparison, "all tasks").scores[0].value, 0.375);  // not the mean of the three, 0.5
  EXPECT_DOUBLE_EQ(group(comparison, "b").scores[0].value, 0.5);
}

TEST(CompareMethods, TakesMeanOrMedianOverTemplates) {
  // Three templates; means over four ids: 1, 0.5, 0.
  const auto examples = answers("a", "110100110100", 3);
  const auto score = [&](OverTemplates over) {
    return or_throw(compare_methods({"m"}, {examples}, {{"a"}},
                                    {.over_templates = over, .num_resamples = 5, .reference = "m"}))
        .groups[0]
        .scores[0]
        .value;
  };
  EXPECT_DOUBLE_EQ(score(OverTemplates::kMean), 0.5);
  EXPECT_DOUBLE_EQ(score(OverTemplates::kMedian), 0.5);
  auto skewed = answers("a", "110110110110", 3);
  EXPECT_DOUBLE_EQ(
      or_throw(compare_methods({"m"}, {skewed}, {{"a"}},
                               {.over_templates = OverTemplates::kMedian, .num_resamples = 5, .reference = "m"}))
          .groups[0]
          .scores[0]
          .value,
      1);
}

TEST(CompareMethods, IntervalHasTheWidthOfTheBinomial) {
  std::string bits;
  for (int i = 0; i < 400; ++i) bits += i % 4 == 0 ? '1' : '0';
  const auto comparison = or_throw(compare_methods({"m"}, {answers("a", bits)}, {{"a"}}, {.reference = "m"}));
  const Estimate& score = comparison.groups[0].scores[0];
  const double half = 1.96 * std::sqrt(0.25 * 0.75 / 400);  // 0.0424
  // The quantiles of 2000 replicates have a standard error of about 5 % of that; three of them.
  EXPECT_NEAR(score.low, 0.25 - half, 0.15 * half + 1.0 / 400);
  EXPECT_NEAR(score.high, 0.25 + half, 0.15 * half + 1.0 / 400);
}

TEST(CompareMethods, TemplatesOfAnIdAreDrawnTogether) {
  // Ten ids of forty equal templates are ten examples, not four hundred.
  std::string many, few;
  for (int i = 0; i < 10; ++i) {
    many += std::string(40, i % 2 == 0 ? '1' : '0');
    few += i % 2 == 0 ? '1' : '0';
  }
  const auto width = [](const std::vector<ScoredExample>& examples) {
    const auto comparison = or_throw(compare_methods({"m"}, {examples}, {{"a"}}, {.reference = "m"}));
    return comparison.groups[0].scores[0].high - comparison.groups[0].scores[0].low;
  };
  EXPECT_DOUBLE_EQ(width(answers("a", many, 40)), width(answers("a", few)));
}

TEST(CompareMethods, PairsMethodsAndCorrectsForTheirNumber) {
  const std::string base(40, '0');
  std::string better = base, same = base;
  for (std::size_t i = 0; i < 12; ++i) better[i] = '1';
  same[0] = '1';
  const auto comparison = or_throw(compare_methods({"base", "better", "same"},
                                                   {answers("a", base), answers("a", better), answers("a", same)},
                                                   {{"a"}}, {.reference = "base"}));
  const GroupResult& result = comparison.groups[0];
  EXPECT_DOUBLE_EQ(result.differences[1].gain.value, 0.3);
  EXPECT_EQ(result.differences[1].wins, 12);
  EXPECT_EQ(result.differences[1].losses, 0);
  EXPECT_DOUBLE_EQ(result.differences[1].mcnemar_p, 2 * 2 * std::pow(0.5, 12));  // two tests, two sides
  EXPECT_LT(result.differences[1].bootstrap_p, 0.01);
  EXPECT_EQ(result.differences[2].mcnemar_p, 1);
  EXPECT_GT(result.differences[2].bootstrap_p, 0.3);
  EXPECT_EQ(result.differences[0].bootstrap_p, 1);
  EXPECT_EQ(result.differences[0].gain.value, 0);
}

TEST(CompareMethods, NormalisesByTheBaseAndByTheOwnExpert) {
  const auto of = [](const std::string& in, const std::string& out) {
    return joined(answers("in", in), answers("out", out));
  };
  const auto comparison = or_throw(compare_methods(
      {"base", "expert", "merged"}, {of("1000", "1100"), of("1111", "1000"), of("1110", "1110")},
      {{.name = "in", .is_held_in = true, .own_expert = "expert"}, {.name = "out"}}, {.reference = "base"}));
  EXPECT_DOUBLE_EQ(group(comparison, "held-in").normalised[2].value, 0.75);
  EXPECT_DOUBLE_EQ(group(comparison, "held-out").normalised[2].value, 1.5);
  EXPECT_DOUBLE_EQ(group(comparison, "all tasks").normalised[2].value, 1.125);
}

TEST(CompareMethods, LeavesOutWhatCannotBeNormalised) {
  const auto comparison = or_throw(compare_methods(
      {"base", "m"}, {joined(answers("a", "00"), answers("b", "10")), joined(answers("a", "11"), answers("b", "11"))},
      {{"a"}, {"b"}}, {.reference = "base"}));
  EXPECT_TRUE(std::isnan(group(comparison, "a").normalised[1].value));
  EXPECT_DOUBLE_EQ(group(comparison, "all tasks").normalised[1].value, 2);
}

TEST(CompareMethods, SaysWhichExampleIsMissing) {
  const std::vector<ComparedTask> tasks = {{"a"}};
  auto other = answers("a", "10");
  other[1].id = "elsewhere";
  const auto error = [&](const std::vector<ScoredExample>& second) {
    return compare_methods({"base", "m"}, {answers("a", "10"), second}, tasks, {.reference = "base"}).error().message;
  };
  EXPECT_THAT(error(other), HasSubstr("method m answered elsewhere of a, which base did not"));
  EXPECT_THAT(error(answers("a", "1")), HasSubstr("method m answered 1 examples and base 2"));
  EXPECT_THAT(compare_methods({"m"}, {answers("a", "1")}, tasks, {.reference = "base"}).error().message,
              HasSubstr("the reference \"base\" is none of the methods"));
  auto twice = answers("a", "10");
  twice[1] = twice[0];
  EXPECT_THAT(compare_methods({"m"}, {twice}, tasks, {.reference = "m"}).error().message, HasSubstr("stands twice"));
}

}  // namespace
}  // namespace skein
