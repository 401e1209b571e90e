// skein compare: every method of a plan on every task, as numbers, a table and a page.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/base/progress.h"
#include "skein/cli/build_facts.h"
#include "skein/cli/compare_run.h"
#include "skein/cli/report_page.h"
#include "skein/cli/result_output.h"
#include "skein/cli/text_table.h"
#include "skein/cli/verbs.h"
#include "skein/eval/report_data.h"
#include "skein/io/digest.h"
#include "skein/spec/library.h"

namespace skein {
namespace {

struct CompareFlags {
  std::string plan;
  bool overwrite = false, no_examples = false;
  std::int64_t page_examples = 100;  // ids per task
  CompareOptions options;
};

// One method's answers to all tasks, and what it took.
struct MethodAnswers {
  std::string name;
  ReportMethod facts;
  std::vector<const std::vector<Json>*> lines;  // per task
  std::vector<Json> maps;                       // per task; empty: no routing followed
};

MethodAnswers collect(const PartialResults& results, const RunMethod& method, const std::vector<AskedTask>& tasks) {
  MethodAnswers answers{method.name, {}, {}, {}};
  answers.facts.words = method.words;
  double seconds = 0, examples = 0;
  for (const AskedTask& asked : tasks) {
    const std::string key = ComparisonRun::key(method.name, asked.task.name);
    const Json& summary = *results.summary_of(key);
    answers.lines.push_back(results.lines_of(key));
    seconds += summary.value("seconds", 0.0);
    examples += summary.value("examples", 0.0);
    answers.facts.added_megabytes = summary.value("megabytes", 0.0);
    if (summary.contains("routing")) answers.maps.push_back(summary["routing"]);
  }
  answers.facts.seconds_per_example = examples > 0 ? seconds / examples : 0;
  return answers;
}

double mean_score(const std::vector<Json>& lines) {
  double sum = 0;
  for (const Json& line : lines) sum += line.value("score", 0.0);
  return sum / static_cast<double>(lines.size());
}

// Best individual and oracle: answers of single experts, picked with the answers in sight. oracle: the picked names.
std::vector<MethodAnswers> picked_methods(const std::vector<MethodAnswers>& all,
                                          const std::vector<std::size_t>& experts,
                                          const std::vector<std::string>& names, std::size_t num_tasks,
                                          std::vector<std::string>& oracle) {
  if (experts.size() < 2) return {};
  MethodAnswers best{"best individual", {}, {}, {}}, each{"oracle", {}, {}, {}};
  double most = -1;
  std::size_t winner = 0;
  for (const std::size_t m : experts) {
    double sum = 0;
    for (const std::vector<Json>* lines : all[m].lines) sum += mean_score(*lines);
    if (sum > most) {
      most = sum;
      winner = m;
    }
  }
  best.lines = all[winner].lines;
  best.facts.words = concat("the expert with the best mean over all tasks: ", all[winner].name);
  each.facts.words = "for each task the expert that is best on it";
  for (std::size_t t = 0; t < num_tasks; ++t) {
    const auto top = std::max_element(experts.begin(), experts.end(), [&](std::size_t a, std::size_t b) {
      return mean_score(*all[a].lines[t]) < mean_score(*all[b].lines[t]);
    });
    each.lines.push_back(all[*top].lines[t]);
    oracle.push_back(names[static_cast<std::size_t>(top - experts.begin())]);
  }
  best.facts.uses_answers = each.facts.uses_answers = true;
  return {best, each};
}

std::vector<ScoredExample> scored(const MethodAnswers& answers) {
  std::vector<ScoredExample> examples;
  for (const std::vector<Json>* lines : answers.lines) {
    for (const Json& line : *lines)
      examples.push_back(
          {line.value("task", ""), line.value("template", ""), line.value("id", ""), line.value("score", 0.0)});
  }
  return examples;
}

// The example browser's data: the first ids of each task with every method's answer. Answers of ranked examples are the
// choice's place.
Json browser_examples(const std::vector<AskedTask>& tasks, const std::vector<MethodAnswers>& methods,
                      std::int64_t limit) {
  Json examples = Json::array();
  for (std::size_t t = 0; t < tasks.size(); ++t) {
    std::map<std::string, bool> ids;
    for (std::size_t i = 0; i < tasks[t].examples.size(); ++i) {
      const Example& example = tasks[t].examples[i];
      if (!ids.contains(example.id) && static_cast<std::int64_t>(ids.size()) >= limit) break;
      ids[example.id] = true;
      Json entry = {{"task", t},
                    {"id", example.id},
                    {"template", example.template_name},
                    {"input", example.input},
                    {"target", example.target},
                    {"answers", Json::array()}};
      if (!example.choices.empty()) entry["choices"] = example.choices;
      for (const MethodAnswers& method : methods) {
        const Json& line = (*method.lines[t])[i];
        const std::string prediction = line.value("prediction", "");
        const auto place = std::find(example.choices.begin(), example.choices.end(), prediction);
        Json answer = {place == example.choices.end() ? Json(prediction) : Json(place - example.choices.begin()),
                       std::round(1e3 * line.value("score", 0.0)) / 1e3};
        if (line.contains("scores")) {
          Json scores = Json::array();
          for (const Json& score : line["scores"]) scores.push_back(std::round(100 * score.get<double>()) / 100);
          answer.push_back(scores);
        }
        entry["answers"].push_back(answer);
      }
      examples.push_back(std::move(entry));
    }
  }
  return examples;
}

// What decides the results: a partial file of other settings is not gone on with.
Json settings_of(const Plan& plan, const std::vector<AskedTask>& tasks, const CompareFlags& flags) {
  Digest text;
  text.update(plan.text);
  Json settings = {{"plan", text.hex()},
                   {"examples", flags.options.keep_examples},
                   {"dtype", flags.options.dtype},
                   {"device", flags.options.device},
                   {"routing", flags.options.routing_examples},
                   {"data", Json::array()}};
  for (const AskedTask& asked : tasks) settings["data"].push_back(asked.digests);
  if (!plan.library.empty()) {
    for (const LibraryEntry& entry : or_throw(open_library(real_env(), plan.library)).experts)
      settings["library"][entry.name] = entry.digests;
  }
  return settings;
}

std::vector<std::pair<std::string, std::string>> shown_settings(const Plan& plan, const std::vector<AskedTask>& tasks,
                                                                const CompareFlags& flags) {
  std::vector<std::pair<std::string, std::string>> shown = {
      {"base", plan.base},
      {"library", plan.library.empty() ? "none" : plan.library},
      {"scoring", plan.scoring},
      {"over templates", plan.over_templates},
      {"tested against", plan.reference},
      {"bootstrap", concat(plan.resamples, " resamples, seed ", plan.seed)},
      {"prompts", plan.chat
                      ? "the model's chat template"
                      : concat("separator ", Json(plan.separator).dump(), ", at most ", plan.max_input, " tokens")},
      {"computed in",
       flags.options.dtype.empty() ? "the device's own type (bf16 where it is native, else f32)" : flags.options.dtype},
      {"program", build_facts()},
      {"command", concat("skein compare ", plan.path, " --out ", flags.options.out)}};
  if (!plan.library.empty()) {
    for (const LibraryEntry& entry : or_throw(open_library(real_env(), plan.library)).experts) {
      for (const auto& [file, digest] : entry.digests) {
        if (file == "adapter_model.safetensors") shown.emplace_back("expert " + entry.name, digest);
      }
    }
  }
  for (const AskedTask& asked : tasks) {
    std::string digests;
    for (const std::string& digest : asked.digests) digests += (digests.empty() ? "" : ", ") + digest;
    shown.emplace_back("task " + asked.task.name, digests);
  }
  return shown;
}

void print_summary(const CompareFlags& flags, const Report& report, const Json& data) {
  if (flags.options.common.json) {
    Json numbers = data;
    for (const char* key : {"plan", "examples"}) numbers.erase(key);
    return print_json(numbers);
  }
  using enum TextTable::Align;
  const Comparison& comparison = report.comparison;
  TextTable table({{"method", kLeft}, {"score"}, {"95 % interval"}, {"gain"}, {"p"}, {"time"}});
  const GroupResult& all = comparison.groups.front();
  std::vector<std::size_t> order(comparison.methods.size());
  for (std::size_t m = 0; m < order.size(); ++m) order[m] = m;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return all.scores[a].value > all.scores[b].value; });
  for (const std::size_t m : order) {
    const bool is_reference = comparison.methods[m] == report.reference;
    table.add_row(
        {printable(comparison.methods[m], 50), fixed(100 * all.scores[m].value, 1),
         concat(fixed(100 * all.scores[m].low, 1), " – ", fixed(100 * all.scores[m].high, 1)),
         is_reference ? "-" : fixed(100 * all.differences[m].gain.value, 1),
         is_reference ? "-" : fixed(std::max(all.differences[m].bootstrap_p, all.differences[m].mcnemar_p), 3),
         report.methods[m].relative_time > 0 ? fixed(report.methods[m].relative_time, 2) + "x" : "-"});
  }
  print_text(table.render(is_styled(stdout)));
  print_text(concat("\nmean over ", comparison.tasks.size(),
                    " tasks; gain and p (the larger of both tests, Holm-corrected) against ",
                    printable(report.reference), "\nwrote ", join_path(flags.options.out, "report.html"), "\n"));
}

int compare(CompareFlags& flags) {
  apply_common_options(flags.options.common);
  const auto comm = or_throw(make_comm());
  flags.options.comm = comm.get();
  const bool is_root = flags.options.is_root();
  if (!is_root) set_progress_mode(ProgressMode::kNone);
  flags.options.keep_examples = !flags.no_examples;
  Env& env = real_env();
  const Plan plan = or_throw(read_plan(env, flags.plan));
  const std::vector<AskedTask> tasks = or_throw(read_plan_tasks(env, plan));
  or_throw(env.make_folders(flags.options.out));
  const std::string out = join_path(flags.options.out, "results.jsonl");
  const auto results =
      or_throw(PartialResults::begin(env, out, settings_of(plan, tasks, flags), flags.overwrite, comm.get()));
  std::vector<RunMethod> methods = expand_methods(plan, flags.options);
  ComparisonRun run(plan, tasks, flags.options, *results);
  run.run(methods);
  std::vector<MergeCell> cells = merge_cells(plan.merging);
  const std::size_t first_cell = methods.size();
  for (RunMethod& cell : run.run_grid()) methods.push_back(std::move(cell));
  if (!is_root) {
    or_throw(results->finish());
    return 0;
  }

  std::vector<MethodAnswers> answers;
  std::vector<std::size_t> experts;
  std::vector<std::string> expert_names, oracle;
  for (const RunMethod& method : methods) {
    if (method.is_expert) {
      experts.push_back(answers.size());
      expert_names.push_back(method.expert);
    }
    answers.push_back(collect(*results, method, tasks));
  }
  for (MethodAnswers& picked : picked_methods(answers, experts, expert_names, tasks.size(), oracle))
    answers.push_back(std::move(picked));

  std::vector<std::string> names;
  std::vector<std::vector<ScoredExample>> examples;
  for (const MethodAnswers& method : answers) {
    names.push_back(method.name);
    examples.push_back(scored(method));
  }
  std::vector<ComparedTask> compared;
  for (const AskedTask& asked : tasks) {
    compared.push_back(asked.task);
    // A task names its expert; the method that is this expert alone may be spelled out.
    if (std::find(names.begin(), names.end(), asked.task.own_expert) == names.end())
      compared.back().own_expert = "expert " + asked.task.own_expert;
  }
  const Comparison comparison = or_throw(compare_methods(
      names, examples, compared,
      {.over_templates = plan.over_templates == "median" ? OverTemplates::kMedian : OverTemplates::kMean,
       .num_resamples = static_cast<int>(plan.resamples),
       .seed = plan.seed,
       .reference = plan.reference}));

  Report report{comparison,
                plan.reference,
                base_name(plan.base),
                plan.scoring,
                plan.text,
                {},
                {},
                {},
                {},
                oracle,
                shown_settings(plan, tasks, flags),
                Json()};
  const auto reference = std::find(names.begin(), names.end(), plan.reference) - names.begin();
  const double unit = answers[static_cast<std::size_t>(reference)].facts.seconds_per_example;
  for (std::size_t m = 0; m < answers.size(); ++m) {
    report.methods.push_back(answers[m].facts);
    if (unit > 0) report.methods.back().relative_time = answers[m].facts.seconds_per_example / unit;
    if (answers[m].maps.size() == tasks.size()) report.routing.push_back({m, answers[m].maps});
  }
  for (const AskedTask& asked : tasks) report.tasks.push_back({asked.chance, asked.majority});
  for (std::size_t c = 0; c < cells.size(); ++c) {
    const std::string base = plan.merging.bases.size() > 1 ? ", " + base_name(cells[c].base) : "";
    ReportCell cell{first_cell + c,
                    plan.merging.methods[cells[c].method].name + base,
                    static_cast<std::int64_t>(cells[c].experts.size()),
                    methods[first_cell + c].words,
                    {}};
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      for (const std::size_t e : cells[c].experts) {
        if (tasks[t].task.own_expert == plan.merging.experts[e].first) cell.held_in.push_back(t);
      }
    }
    report.cells.push_back(std::move(cell));
  }
  if (!flags.no_examples) report.examples = browser_examples(tasks, answers, flags.page_examples);

  const Json data = report_json(report);
  Json numbers = data;
  for (const char* key : {"plan", "examples"}) numbers.erase(key);
  or_throw(write_text_atomically(env, join_path(flags.options.out, "comparison.json"),
                                 numbers.dump(1, ' ', false, Json::error_handler_t::replace) + "\n"));
  or_throw(write_text_atomically(env, join_path(flags.options.out, "table.md"), report_table(report)));
  or_throw(write_text_atomically(env, join_path(flags.options.out, "report.html"), report_page(data)));
  or_throw(results->finish());
  print_summary(flags, report, data);
  return 0;
}

}  // namespace

void add_compare_verb(CLI::App& program, Job& job) {
  auto flags = std::make_shared<CompareFlags>();
  CLI::App& verb =
      add_command(program, "compare", "Every method of a plan on every task: table, tests, a page with plots",
                  "skein compare plan.yml --out comparison\n"
                  "skein compare plan.yml --out docs/results/comparison --no-examples\n"
                  "mpirun -n 4 skein compare plan.yml --out comparison");
  verb.add_option("plan", flags->plan, "PLAN.yml: base, library, tasks and methods (docs/formats/plan.md)")
      ->type_name("PLAN")
      ->required();
  verb.add_option("--out", flags->options.out,
                  "Folder of results.jsonl, comparison.json, table.md and report.html; a run that was killed goes on "
                  "when it is called again")
      ->type_name("DIR")
      ->required();
  verb.add_flag("--no-examples", flags->no_examples,
                "Leave the data's text and the answers out of all that is written");
  verb.add_option("--page-examples", flags->page_examples, "Ids per task in the page's example browser")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--routing-examples", flags->options.routing_examples,
                  "Examples per task whose routing is followed for the routing maps; 0: none")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--max-batch-tokens", flags->options.max_batch_tokens,
                  "Tokens per forward pass (memory); scores do not depend on it")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--device", flags->options.device, "cpu, cuda or cuda:K; without it cuda if there is one")
      ->type_name("DEVICE");
  verb.add_option("--dtype", flags->options.dtype,
                  "f32 or bf16; without it bf16 where the device computes in it natively, else f32")
      ->type_name("TYPE");
  verb.add_flag("--allow-other-base", flags->options.allow_other_base, "Use experts although they name another base");
  add_overwrite_option(verb, flags->overwrite);
  add_common_options(verb, flags->options.common);
  verb.callback([&job, flags] { job.run = [flags] { return compare(*flags); }; });
}

}  // namespace skein
