// skein compare, from a plan to a page, on a tiny model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "tests/end_to_end/program.h"

namespace skein {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// Two experts on letter tasks in a pool, and a plan that compares the ways to use them.
struct Plan {
  TemporaryFolder folder;
  std::string base = tiny_base(folder);
  std::string ab = letter_task(folder, "ab", "ab", 16);
  std::string xyz = letter_task(folder, "xyz", "xyz", 18);
  std::string library = folder / "pool";
  std::string out = folder / "out";
  std::string path = folder / "plan.yml";

  Plan() {
    const std::string first = tiny_expert(folder, base, ab, "first"), second = tiny_expert(folder, base, xyz, "second");
    EXPECT_EQ(run_skein({"library", "create", library, "--base", base}).code, 0);
    EXPECT_EQ(run_skein({"library", "add", library, first, second}).code, 0);
    write_file(path,
               "base: base\nlibrary: pool\nresamples: 200\nlimit: 12\nreference: base\ntasks:\n"
               "  - {data: ab.jsonl, expert: first}\n  - xyz.jsonl\nmethods:\n  - base\n  - every expert\n"
               "  - {router: phatgoose, top_k: 1}\n  - {name: even, router: uniform, top_k: 2}\n  - adapter: first\n");
  }
  std::vector<std::string> words(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all = {"compare", path, "--out", out, "--dtype", "f32", "--threads", "1"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

TEST(Compare, WritesNumbersATableAndAPage) {
  const Plan plan;
  const Outcome outcome = run_skein(plan.words());
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, testing::AllOf(HasSubstr("oracle"), HasSubstr("best individual"), HasSubstr("report.html")));
  EXPECT_THAT(names_in(plan.out), ElementsAre("comparison.json", "report.html", "results.jsonl", "table.md"));
  const Json data = json_of(read_file(plan.out + "/comparison.json"));
  std::vector<std::string> names;
  for (const Json& method : data["methods"]) names.push_back(method["name"]);
  EXPECT_THAT(names, ElementsAre("base", "expert first", "expert second", "phatgoose, top-k 1", "even", "adapter first",
                                 "best individual", "oracle"));
  ASSERT_EQ(data["tasks"].size(), 2u);
  EXPECT_EQ(data["tasks"][0]["ids"], 12);
  EXPECT_EQ(data["tasks"][0]["heldIn"], true);
  const Json& task = data["groups"][3];
  EXPECT_EQ(task["name"], "ab");
  EXPECT_EQ(task["scores"][1], task["scores"][5]) << "the expert in the pool and the same one as an adapter";
  EXPECT_EQ(task["normalised"][1][0], 1.0) << "held-in: by its own expert";
  ASSERT_EQ(data["routing"].size(), 2u);
  EXPECT_THAT(data["routing"][1]["method"], "even");
  EXPECT_EQ(data["routing"][1]["taskShare"][0].size(), 2u);
  EXPECT_EQ(json_lines_of(read_file(plan.out + "/results.jsonl")).size(), 6u * 24u);
  EXPECT_THAT(read_file(plan.out + "/table.md"), HasSubstr("| phatgoose, top-k 1 |"));
  const std::string page = read_file(plan.out + "/report.html");
  EXPECT_THAT(page, Not(HasSubstr("SKEIN_REPORT_DATA")));
  EXPECT_THAT(page, HasSubstr("\"examples\":[{\"task\":0"));
  EXPECT_EQ(run_skein(plan.words()).code, 1) << "an existing output is refused";
}

TEST(Compare, LeavesTheDataOutWhenAskedTo) {
  const Plan plan;
  ASSERT_EQ(run_skein(plan.words({"--no-examples", "--routing-examples", "0"})).code, 0);
  const auto lines = json_lines_of(read_file(plan.out + "/results.jsonl"));
  ASSERT_FALSE(lines.empty());
  EXPECT_FALSE(lines[0].contains("prediction"));
  EXPECT_FALSE(lines[0].contains("target"));
  EXPECT_THAT(read_file(plan.out + "/report.html"), HasSubstr("\"examples\":null"));
  EXPECT_TRUE(json_of(read_file(plan.out + "/comparison.json"))["routing"].empty());
}

TEST(Compare, GoesOnWhereItStopped) {
  const Plan plan;
  ASSERT_EQ(run_skein(plan.words({"--json"})).code, 0);
  const std::string results = plan.out + "/results.jsonl", unbroken = read_file(results);
  std::filesystem::remove_all(plan.out);
  // A run that fails at its last method, for its adapter is gone, has kept all others.
  std::filesystem::rename(plan.folder / "first", plan.folder / "elsewhere");
  EXPECT_EQ(run_skein(plan.words()).code, 1);
  ASSERT_TRUE(exists(results + ".partial"));
  std::filesystem::rename(plan.folder / "elsewhere", plan.folder / "first");
  const Outcome outcome = run_skein(plan.words());
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("10 tasks are done"));
  EXPECT_EQ(read_file(results), unbroken);
}

#ifdef SKEIN_MPIRUN
// Time aside, whoever computes: results and numbers are those of one process.
TEST(Compare, GivesTheSameResultsOnSeveralRanks) {
  const Plan plan;
  const auto run_ranks = [&](const std::vector<std::string>& words) {
    std::string command = "timeout 120 " SKEIN_MPIRUN " --allow-run-as-root --oversubscribe -n 2 " SKEIN_PROGRAM;
    for (const std::string& word : words) command += " " + word;
    return WEXITSTATUS(std::system((command + " > /dev/null 2>&1").c_str()));
  };
  ASSERT_EQ(run_skein(plan.words()).code, 0);
  const std::string results = read_file(plan.out + "/results.jsonl");
  const Json groups = json_of(read_file(plan.out + "/comparison.json"))["groups"];
  std::filesystem::remove_all(plan.out);
  ASSERT_EQ(run_ranks(plan.words()), 0);
  EXPECT_EQ(read_file(plan.out + "/results.jsonl"), results);
  EXPECT_EQ(json_of(read_file(plan.out + "/comparison.json"))["groups"], groups);

  const std::vector<std::string> eval = {"eval",    "--base", plan.base, "--library", plan.library, "--tasks", plan.ab,
                                         "--limit", "5",      "--dtype", "f32",       "--threads",  "1",       "--out"};
  std::vector<std::string> alone = eval, shared = eval;
  alone.push_back(plan.folder / "alone.jsonl");
  shared.push_back(plan.folder / "shared.jsonl");
  ASSERT_EQ(run_skein(alone).code, 0);
  ASSERT_EQ(run_ranks(shared), 0);
  EXPECT_EQ(read_file(shared.back()), read_file(alone.back()));
  EXPECT_EQ(run_ranks(shared), 1) << "an existing output is refused, on all ranks";
}
#endif

TEST(Compare, SaysWhatIsWrongWithAPlan) {
  const Plan plan;
  const auto error_of = [&](const std::string& methods) {
    write_file(plan.path, "base: base\nlibrary: pool\ntasks: [ab.jsonl]\nmethods: " + methods + "\n");
    const Outcome outcome = run_skein(plan.words());
    EXPECT_NE(outcome.code, 0);
    return outcome.err;
  };
  EXPECT_THAT(error_of("[{router: phatgoose, tok_k: 1}]"), HasSubstr("tok-k"));
  EXPECT_THAT(error_of("[nonsense]"), HasSubstr("method nonsense: --router"));
  EXPECT_THAT(error_of("[base, {router: single}]"), HasSubstr("--expert"));
  EXPECT_THAT(error_of("[base, {name: expert first, router: uniform}, every expert]"),
              HasSubstr("two methods are named expert first"));
}

}  // namespace
}  // namespace skein
