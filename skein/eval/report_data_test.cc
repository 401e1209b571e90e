#include "skein/eval/report_data.h"

#include <gmock/gmock.h>

#include <cmath>

#include "skein/base/concat.h"

namespace skein {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::vector<ScoredExample> answers(const std::string& task, const std::string& bits) {
  std::vector<ScoredExample> examples;
  for (std::size_t i = 0; i < bits.size(); ++i) examples.push_back({task, "", concat("id", i), bits[i] - '0' + 0.0});
  return examples;
}

std::vector<ScoredExample> both(const std::string& in, const std::string& out) {
  auto examples = answers("in", in);
  for (const ScoredExample& example : answers("out", out)) examples.push_back(example);
  return examples;
}

Comparison sample() {
  return or_throw(compare_methods({"base", "a | b", "ties"},
                                  {both("0000", "1100"), both("1111", "1000"), both("1110", "1110")},
                                  {{.name = "in", .is_held_in = true, .own_expert = "a | b"}, {.name = "out"}},
                                  {.num_resamples = 50, .reference = "base"}));
}

Report sample_report(const Comparison& comparison) {
  Report report{comparison, "base", "tiny", "t0", "base: x", {}, {}, {}, {}, {}, {}, Json()};
  report.methods = {{"", false, 0.01, 1, 0}, {"", true, 0, 0, 0}, {"", false, 0.02, 2, 3.5}};
  report.tasks = {{0.25, 0.5}, {0.5, 0.75}};
  return report;
}

TEST(ReportJson, HoldsEveryNumberOfThePage) {
  const Comparison comparison = sample();
  const Json data = report_json(sample_report(comparison));
  EXPECT_EQ(data["reference"], 0);
  EXPECT_EQ(data["methods"][1]["usesAnswers"], true);
  EXPECT_EQ(data["tasks"][1]["majority"], 0.75);
  const Json& out = data["groups"].back();
  EXPECT_EQ(out["name"], "out");
  EXPECT_EQ(out["kind"], "task");
  EXPECT_EQ(out["scores"][2][0], 0.75);
  EXPECT_EQ(out["gain"][2][0], 0.25);
  EXPECT_EQ(out["wins"][2], 1);
  EXPECT_EQ(data["examples"], nullptr);
}

TEST(ReportJson, DividesCellsByTheirOwnExpertsAndByTheBase) {
  const Comparison comparison = sample();
  Report report = sample_report(comparison);
  report.cells = {{2, "ties", 1, "density 0.5", {0}}, {2, "ties", 0, "", {}}};
  const Json data = report_json(report);
  EXPECT_EQ(data["grid"][0]["normalised"]["held-in"], 0.75);
  EXPECT_EQ(data["grid"][0]["normalised"]["held-out"], 1.5);
  EXPECT_TRUE(std::isnan(data["grid"][1]["normalised"]["held-in"].get<double>()));
  EXPECT_THAT(data.dump(), HasSubstr(R"({"held-in":null,"held-out":1.5})"));
}

TEST(ReportJson, AveragesRoutingOverLayersModulesAndTasks) {
  const Comparison comparison = sample();
  Report report = sample_report(comparison);
  const auto map = [](double a, double b) {
    Json map = {{"examples", 4}, {"entropy", {0.5, 1.0, 0.0}}, {"shares", {{a, 1 - a}, {b, 1 - b}, {1.0, 0.0}}}};
    map["experts"] = std::vector<std::string>{"x", "y"};
    map["slots"] = std::vector<std::vector<std::string>>{{"0", "q"}, {"0", "k"}, {"1", "q"}};
    return map;
  };
  report.routing = {{2, {map(0.5, 0.25), map(0.5, 0.75)}}};
  report.oracle = {"y", "nobody"};
  const Json routing = report_json(report)["routing"][0];
  EXPECT_EQ(routing["method"], "ties");
  EXPECT_EQ(routing["layers"].dump(), R"(["0","1"])");
  EXPECT_EQ(routing["layerShare"][0][0], 0.5);  // (0.5 + 0.25 + 0.5 + 0.75) / 4
  EXPECT_EQ(routing["layerShare"][1][0], 1.0);
  EXPECT_EQ(routing["moduleShare"][0][0], 0.75);  // q: (0.5 + 1 + 0.5 + 1) / 4
  EXPECT_NEAR(routing["taskShare"][0][0].get<double>(), (0.5 + 0.25 + 1) / 3, 1e-4);
  EXPECT_EQ(routing["tokenEntropy"][0], 0.75);
  EXPECT_EQ(routing["numExamples"], 8);
  EXPECT_EQ(routing["oracle"][0], 1);
  EXPECT_EQ(routing["oracle"][1], nullptr);
}

TEST(ReportTable, IsMarkdownWithIntervalsChanceAndMajority) {
  const Comparison comparison = sample();
  const std::string table = report_table(sample_report(comparison));
  EXPECT_THAT(table, HasSubstr("| method | all tasks (2) | held-in (1) | held-out (1) | gain |"));
  EXPECT_THAT(table, HasSubstr("| a \\| b (sees the answers) |"));
  EXPECT_THAT(table, HasSubstr("| base | 25.0 ("));
  EXPECT_THAT(table, HasSubstr("2.00×"));
  EXPECT_THAT(table, HasSubstr("| out | 4 | 50.0 | 75.0 |"));
  EXPECT_THAT(table, Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace skein
