// skein eval: accuracy on tasks, per example.
#include <CLI/CLI.hpp>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/base/progress.h"
#include "skein/cli/model_flags.h"
#include "skein/cli/partial_results.h"
#include "skein/cli/prompt_flags.h"
#include "skein/cli/result_output.h"
#include "skein/cli/routing_shares.h"
#include "skein/cli/text_table.h"
#include "skein/cli/verbs.h"
#include "skein/eval/evaluate.h"
#include "skein/eval/task_files.h"
#include "skein/io/digest.h"

namespace skein {
namespace {

struct EvalFlags {
  ModelFlags model;
  CommonOptions common;
  std::vector<std::string> tasks;
  std::string out, shares;
  std::string scoring = "phatgoose", over_templates = "mean";
  bool overwrite = false;
  EvalOptions eval{.method = ""};
};

// Examples of one task, in order.
struct Task {
  std::string name;
  std::vector<Example> examples;
};

std::vector<Task> tasks_of(std::vector<Example> examples, std::int64_t limit) {
  std::vector<Task> tasks;
  for (Example& example : examples) {
    auto task = std::find_if(tasks.begin(), tasks.end(), [&](const Task& known) { return known.name == example.task; });
    if (task == tasks.end()) task = tasks.insert(tasks.end(), {example.task, {}});
    if (limit > 0 && static_cast<std::int64_t>(task->examples.size()) >= limit) continue;
    task->examples.push_back(std::move(example));
  }
  return tasks;
}

// What decides the results: a partial file of other settings is not gone on with.
Json settings_of(const EvalFlags& flags, const ModelOptions& options) {
  Json digests = Json::array();
  for (const std::string& path : flags.tasks) digests.push_back(or_throw(digest_of_file(real_env(), path)));
  return {{"method", flags.eval.method},
          {"base", options.base},
          {"adapter", options.adapter},
          {"library", options.library},
          {"mixture", options.mixture},
          {"router", router_words(options.router)},
          {"temperature", options.router.temperature},
          {"only", options.router.only},
          {"without", options.router.without},
          {"bf16", options.compute.dtype == c10::ScalarType::BFloat16},
          {"base_bits", options.compute.base_bits},
          {"scoring", flags.scoring},
          {"limit", flags.eval.limit},
          {"max_new_tokens", flags.eval.max_new_tokens},
          {"stop", flags.eval.stop},
          {"over_templates", flags.over_templates},
          {"separator", flags.eval.prompt.separator},
          {"chat", flags.eval.prompt.chat},
          {"max_input", flags.eval.prompt.max_input},
          {"data", digests}};
}

Json summary_json(const TaskResult& result, bool per_character) {
  Json summary = {{"task", result.task},        {"n", result.num_examples},     {"score", result.score},
                  {"low", result.interval_low}, {"high", result.interval_high}, {"chance", result.chance},
                  {"majority", result.majority}};
  if (!result.metrics.empty()) {
    for (const auto& [name, value] : result.metrics) summary["metrics"][name] = value;
  }
  if (per_character) {
    std::int64_t hits = 0;
    for (const ExampleResult& example : result.examples) hits += example.correct_per_character ? 1 : 0;
    summary["score_per_character"] = static_cast<double>(hits) / static_cast<double>(result.num_examples);
  }
  return summary;
}

void print_summaries(const EvalFlags& flags, const std::vector<Json>& summaries, const Json& pages) {
  if (flags.common.json) {
    Json result = {{"method", flags.eval.method}, {"scoring", flags.scoring}, {"tasks", summaries}};
    if (!pages.is_null()) result["expert_pages"] = pages;
    print_json(result);
    return;
  }
  using enum TextTable::Align;
  const bool per_character = !summaries.empty() && summaries.front().contains("score_per_character");
  std::vector<TextTable::Column> columns = {{"task", kLeft},   {"n"},      {"score"},
                                            {"95 % interval"}, {"chance"}, {"majority"}};
  if (per_character) columns.push_back({"per character"});
  TextTable table(columns);
  double sum = 0;
  for (const Json& summary : summaries) {
    const auto number = [&](const char* key) { return fixed(summary.value(key, 0.0), 3); };
    std::vector<TextTable::Cell> row = {printable(summary.value("task", ""), 40),
                                        grouped(summary.value("n", std::int64_t{0})),
                                        {number("score"), true},
                                        concat(number("low"), " – ", number("high")),
                                        number("chance"),
                                        number("majority")};
    if (per_character) row.push_back(number("score_per_character"));
    table.add_row(row);
    sum += summary.value("score", 0.0);
  }
  print_text(table.render(is_styled(stdout)));
  print_text(concat("\n", flags.eval.method, ", scoring ", flags.scoring, "; mean of the ", summaries.size(), " tasks ",
                    fixed(sum / static_cast<double>(std::max<std::size_t>(1, summaries.size())), 3), "\n"));
}

void write_shares(const EvalFlags& flags, const LoadedModel& model, const std::vector<Task>& tasks) {
  std::string text;
  for (const Task& task : tasks) {
    for (const ExampleShares& example :
         routing_shares(model, task.examples, flags.eval.prompt, flags.eval.max_batch_tokens)) {
      Json shares = Json::object();
      for (std::size_t e = 0; e < example.shares.size(); ++e) shares[model.expert_names[e]] = example.shares[e];
      text +=
          json_line({{"method", flags.eval.method}, {"task", example.task}, {"id", example.id}, {"shares", shares}}) +
          "\n";
    }
  }
  or_throw(write_text_atomically(real_env(), flags.shares, text));
  log_info("wrote " + flags.shares);
}

std::string default_method(const ModelOptions& options) {
  if (!options.adapter.empty()) return "adapter " + base_name(options.adapter);
  if (!options.mixture.empty()) return "mixture " + base_name(options.mixture);
  return options.library.empty() ? "base" : router_words(options.router);
}

int eval(EvalFlags& flags) {
  const ModelOptions options = model_options(flags.model, flags.common);
  unescape_separator(flags.eval.prompt);
  flags.eval.scoring = flags.scoring == "t0"        ? Scoring::kT0
                       : flags.scoring == "lm-eval" ? Scoring::kLmEval
                                                    : Scoring::kPhatgoose;
  flags.eval.over_templates = flags.over_templates == "median" ? OverTemplates::kMedian : OverTemplates::kMean;
  for (std::string& stop : flags.eval.stop) stop = unescaped(stop);
  if (flags.eval.method.empty()) flags.eval.method = default_method(options);
  if (!flags.shares.empty() && options.library.empty() && options.mixture.empty())
    throw Failure({"--shares needs --library or --mixture", ErrorKind::kUsage});
  refuse_existing(flags.shares, flags.overwrite);
  const auto comm = or_throw(make_comm());
  const bool is_root = comm->rank() == 0;
  if (!is_root) set_progress_mode(ProgressMode::kNone);
  flags.eval.comm = comm.get();
  const std::vector<Task> tasks = tasks_of(or_throw(read_task_files(real_env(), flags.tasks)), flags.eval.limit);
  std::unique_ptr<PartialResults> results;
  if (!flags.out.empty())
    results = or_throw(
        PartialResults::begin(real_env(), flags.out, settings_of(flags, options), flags.overwrite, comm.get()));

  const LoadedModel model = load_model(real_env(), options);
  std::vector<Json> summaries;
  for (const Task& task : tasks) {
    const Json* done = results ? results->summary_of(task.name) : nullptr;
    if (done != nullptr) {
      summaries.push_back(*done);
      continue;
    }
    for (const TaskResult& result : evaluate(model, task.examples, flags.eval)) {
      summaries.push_back(summary_json(result, flags.eval.scoring == Scoring::kLmEval));
      std::vector<Json> lines;
      for (const ExampleResult& example : result.examples) lines.push_back(result_line(example, flags.eval.method));
      if (results) or_throw(results->add_task(task.name, std::move(lines), summaries.back()));
    }
  }
  if (!flags.shares.empty() && is_root) write_shares(flags, model, tasks);
  if (results) {
    or_throw(results->finish());
    if (is_root) log_info("wrote " + flags.out);
  }
  if (is_root) print_summaries(flags, summaries, report_expert_pages(model));
  return 0;
}

}  // namespace

void add_eval_verb(CLI::App& program, Job& job) {
  auto flags = std::make_shared<EvalFlags>();
  CLI::App& verb =
      add_command(program, "eval", "Scores of a base, an adapter or a routed pool on tasks",
                  "skein eval --base models/smollm2.gguf --library pool --tasks copa.jsonl --out results.jsonl\n"
                  "skein eval --base BASE --adapter experts/copa --tasks copa.jsonl --scoring lm-eval --chat\n"
                  "mpirun -n 4 skein eval --base BASE --tasks copa.jsonl --threads 4 --out results.jsonl");
  verb.add_option(
          "--tasks", flags->tasks,
          "DATA to answer: by choice where a line has choices, else by generated text; also BIG-bench's task.json and "
          "lm-evaluation-harness's samples files")
      ->type_name("DATA")
      ->required();
  verb.add_option("--out", flags->out,
                  "Write every answer as JSON lines; a run that was killed goes on when it is called again")
      ->type_name("FILE");
  verb.add_option("--shares", flags->shares,
                  "Routed pools: write how each example's routing weight was shared out, as JSON lines")
      ->type_name("FILE");
  verb.add_option("--method", flags->eval.method, "Name of the method in the results; without it the router's words")
      ->type_name("NAME");
  verb.add_option("--scoring", flags->scoring,
                  "Of choices: phatgoose (mean log-probability per token with end of sequence), t0 (sum, with "
                  "it) or lm-eval (sum without it; accuracy also per character)")
      ->type_name("RULE")
      ->check(CLI::IsMember({"phatgoose", "t0", "lm-eval"}))
      ->capture_default_str();
  verb.add_option("--limit", flags->eval.limit, "Examples per task; 0: all")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--max-new-tokens", flags->eval.max_new_tokens, "Tokens of a free answer at most")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--stop", flags->eval.stop,
                  "A generated answer ends before this text (\\n: a line's end); repeatable")
      ->type_name("TEXT");
  verb.add_option("--over-templates", flags->over_templates,
                  "A task's score is the mean or the median of its templates' scores")
      ->type_name("RULE")
      ->check(CLI::IsMember({"mean", "median"}))
      ->capture_default_str();
  verb.add_option("--max-batch-tokens", flags->eval.max_batch_tokens,
                  "Tokens per forward pass (memory); scores do not depend on it")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_overwrite_option(verb, flags->overwrite);
  add_prompt_flags(verb, flags->eval.prompt);
  add_model_flags(verb, flags->model);
  add_common_options(verb, flags->common);
  verb.callback([&job, flags] { job.run = [flags] { return eval(*flags); }; });
}

}  // namespace skein
