#include "skein/eval/plan.h"

#include <gmock/gmock.h>

#include "skein/base/concat.h"
#include "skein/io/yaml.h"

namespace skein {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Result<Plan> read(const std::string& text) {
  const auto env = make_memory_env();
  or_throw(env->make_folders("plans"));
  or_throw(write_text_atomically(*env, "plans/p.yml", text));
  return read_plan(*env, "plans/p.yml");
}

std::string error_of(const std::string& text) {
  const auto plan = read(text);
  return plan.ok() ? "no error" : plan.error().message;
}

constexpr char kHead[] = "base: b.gguf\ntasks: [a.jsonl]\n";

std::vector<std::string> names(const Plan& plan) {
  std::vector<std::string> found;
  for (const PlanMethod& method : plan.methods) found.push_back(method.name);
  return found;
}

TEST(ReadPlan, TakesTheExampleOfTheFormatPage) {
  const std::string page = or_throw(read_text_file(real_env(), concat(SKEIN_SOURCE_DIR, "/docs/formats/plan.md")));
  const std::size_t begin = page.find("```yaml\n") + 8;
  const Plan plan = or_throw(read(page.substr(begin, page.find("```", begin) - begin)));
  EXPECT_EQ(plan.base, "plans/models/smollm2.gguf");
  EXPECT_EQ(plan.library, "plans/pool");
  ASSERT_EQ(plan.tasks.size(), 3u);
  EXPECT_THAT(plan.tasks[1].data, ElementsAre("plans/heldout/anli_r1.jsonl", "plans/heldout/anli_r2.jsonl"));
  EXPECT_EQ(plan.tasks[1].category, "anli");
  EXPECT_EQ(plan.tasks[1].limit, 100);
  EXPECT_TRUE(plan.tasks[2].is_held_in);
  EXPECT_EQ(plan.tasks[2].own_expert, "trec");
  EXPECT_THAT(names(plan),
              ElementsAre("base", "", "phatgoose", "shuffled gates", "phatgoose, top-k 1, router-temperature 0.5",
                          "phatgoose, top-k 1, router-temperature 1", "phatgoose, top-k 2, router-temperature 0.5",
                          "phatgoose, top-k 2, router-temperature 1", "adapter multitask", "merge ties.yml"));
  EXPECT_EQ(plan.methods[1].kind, PlanMethod::Kind::kEveryExpert);
  EXPECT_THAT(plan.methods[3].flags, ElementsAre("--router", "phatgoose", "--gates", "shuffled"));
  EXPECT_THAT(plan.methods[8].flags, ElementsAre("--adapter", "plans/multitask"));
  EXPECT_EQ(plan.methods[9].recipe, "plans/ties.yml");
}

TEST(ReadPlan, TurnsListsAndSwitchesIntoWordsOfACommandLine) {
  const Plan plan = or_throw(read(concat(
      kHead, "methods: [{router: phatgoose, only: [x, y], bf16_scores: true, allow-other-base: false, name: n}]\n")));
  EXPECT_THAT(plan.methods[0].flags, ElementsAre("--router", "phatgoose", "--only", "x,y", "--bf16-scores"));
}

TEST(ReadPlan, NamesTheLineOfWhatIsWrong) {
  const std::string head = kHead;
  EXPECT_THAT(error_of(head + "methods: [base]\nlimits: 3\n"),
              HasSubstr("p.yml, line 4: a plan has the key \"limits\""));
  EXPECT_THAT(error_of(head + "methods: [base]\nlimit: many\n"), HasSubstr("\"limit\" is"));
  EXPECT_THAT(error_of(head + "methods: [base]\nlimit: -1\n"), HasSubstr("a whole number from 0"));
  EXPECT_THAT(error_of(head + "methods: [base]\nscoring: best\n"), HasSubstr("one of phatgoose, t0, lm-eval"));
  EXPECT_THAT(error_of(head + "methods: base\n"), HasSubstr("no list of \"methods\""));
  EXPECT_THAT(error_of("tasks: [a]\nmethods: [base]\n"), HasSubstr("no \"base\""));
  EXPECT_THAT(error_of("base: b\nmethods: [base]\n"), HasSubstr("no list of \"tasks\""));
  EXPECT_THAT(error_of("base: b\ntasks: [{name: x}]\nmethods: [base]\n"), HasSubstr("line 2: a task without \"data\""));
  EXPECT_THAT(error_of(head + "methods:\n  - base\n  - base\n"), HasSubstr("line 5: the method \"base\" stands twice"));
  EXPECT_THAT(error_of(head + "methods: [base]\nreference: other\n"), HasSubstr("the reference \"other\" is none"));
  EXPECT_THAT(error_of(head + "methods: [every expert]\n"), HasSubstr("name the \"reference\""));
  EXPECT_THAT(error_of(head + "methods: [{merge: r.yml, top_k: 1}]\n"), HasSubstr("a merge takes only a name"));
  EXPECT_THAT(error_of(head + "methods: [{router: x, sweep: {top_k: 1}}]\n"), HasSubstr("a list of values"));
  EXPECT_THAT(error_of(head + "methods: [{router: {a: b}}]\n"), HasSubstr("\"router\" is"));
  EXPECT_THAT(error_of("a: b\n---\nc: d\n"), HasSubstr("2 documents"));
}

TEST(ReadPlan, RefusesASweepThatExplodes) {
  std::string sweep;
  for (int i = 0; i < 5; ++i) sweep += concat("o", i, ": [1,2,3,4,5,6,7,8], ");
  EXPECT_THAT(error_of(concat(kHead, "methods: [{router: x, sweep: {", sweep, "}}]\n")),
              HasSubstr("more than 10000 methods"));
}

constexpr char kGrid[] =
    "methods: [base]\n"
    "merging:\n"
    "  bases: [p/one, p/two]\n"
    "  experts: {trec: \"{base}-trec\", cola: \"{base}+ad/cola\", rte: /abs/rte}\n"
    "  methods: [linear, {merge_method: ties, density: [0.2, 0.5], lambda: [0.5, 1.0], normalize: true}]\n"
    "  counts: [2, 3]\n"
    "  seeds: [0, 1]\n";

TEST(MergeGrid, IsEveryCombinationOnce) {
  const Plan plan = or_throw(read(concat(kHead, kGrid)));
  const auto cells = merge_cells(plan.merging);
  // Two bases, two methods; of two experts two selections (unless they coincide), of three only one.
  const bool same = select_experts(3, 2, 0) == select_experts(3, 2, 1);
  EXPECT_EQ(cells.size(), 2u * 2u * (same ? 2u : 3u));
  EXPECT_EQ(cells[0].name, "linear, 2 of 3 experts, seed 0, one");
  EXPECT_EQ(cells.back().base, "plans/p/two");
}

TEST(MergeGrid, ChoosesAmongAllCombinationsOfListedValues) {
  const Plan plan = or_throw(read(concat(kHead, kGrid)));
  const auto settings = merge_settings(plan.merging.methods[1]);
  ASSERT_EQ(settings.size(), 4u);
  EXPECT_THAT(settings[1], ElementsAre("0.2", "1.0", "true"));
  EXPECT_EQ(merge_settings(plan.merging.methods[0]).size(), 1u);
}

TEST(MergeGrid, WritesRecipesOfTheMergeGrammar) {
  const Plan plan = or_throw(read(concat(kHead, kGrid)));
  const MergeCell cell{"ties", "plans/p/one", 1, {0, 1}};
  const std::string text = merge_recipe(plan.merging, cell, {"0.2", "1.0", "true"});
  const YamlNode recipe = or_throw(parse_yaml(text, "r.yml")).at(0);
  EXPECT_EQ(recipe.find("merge_method")->text, "ties");
  EXPECT_EQ(recipe.find("base_model")->text, "plans/p/one");
  EXPECT_EQ(recipe.find("parameters")->find("lambda")->text, "1.0");
  EXPECT_EQ(recipe.find("parameters")->find("normalize")->text, "true");
  ASSERT_EQ(recipe.find("models")->items.size(), 2u);
  EXPECT_EQ(recipe.find("models")->items[0].find("model")->text, "plans/p/one-trec");
  EXPECT_EQ(recipe.find("models")->items[1].find("model")->text, "plans/p/one+plans/ad/cola");
  EXPECT_EQ(recipe.find("models")->items[1].find("parameters")->find("density")->text, "0.2");
  EXPECT_EQ(merge_recipe(plan.merging, {"linear", "x", 0, {2}}, {}).find("base_model"), std::string::npos);
}

TEST(SelectExperts, DrawsEveryExpertAsOftenAndInOrder) {
  std::vector<int> times(5, 0);
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    const auto chosen = select_experts(5, 2, seed);
    ASSERT_EQ(chosen.size(), 2u);
    ASSERT_LT(chosen[0], chosen[1]);
    for (const std::size_t e : chosen) ++times[e];
  }
  // 400 each with a standard deviation of 15.5; five of them.
  for (const int count : times) EXPECT_NEAR(count, 400, 78);
}

TEST(MergeGrid, SaysWhatItLacks) {
  const auto error = [](const std::string& grid) {
    return error_of(concat(kHead, "methods: [base]\nmerging: ", grid, "\n"));
  };
  EXPECT_THAT(error("{counts: [1]}"), HasSubstr("needs experts, methods and counts"));
  EXPECT_THAT(error("{experts: {a: b}, methods: [linear], counts: [2]}"),
              HasSubstr("\"counts\" has 2; there are 1 experts"));
  EXPECT_THAT(error("{experts: {a: b}, methods: [{density: 1}], counts: [1]}"), HasSubstr("without \"merge_method\""));
  EXPECT_THAT(error("{experts: {a: b}, methods: [linear], counts: [x]}"), HasSubstr("whole numbers from 1"));
}

}  // namespace
}  // namespace skein
