#include "skein/cli/compare_run.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <map>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/cli/merge_step.h"
#include "skein/cli/model_flags.h"
#include "skein/eval/routing_map.h"
#include "skein/spec/library.h"

namespace skein {
namespace {

bool has_flag(const std::vector<std::string>& flags, const std::string& name) {
  return std::find(flags.begin(), flags.end(), name) != flags.end();
}

std::string words_of(const std::vector<std::string>& flags) {
  std::string words;
  for (const std::string& flag : flags) words += concat(words.empty() ? "" : " ", flag);
  return words;
}

// The method's own options after those that the plan and the command line give to all.
std::vector<std::string> complete_flags(const std::vector<std::string>& own, const Plan& plan,
                                        const CompareOptions& options) {
  std::vector<std::string> flags;
  if (!has_flag(own, "--base")) flags.insert(flags.end(), {"--base", plan.base});
  const bool stands_alone = has_flag(own, "--adapter") || has_flag(own, "--mixture") || has_flag(own, "--library");
  const bool routes = std::any_of(own.begin(), own.end(), [](const std::string& flag) {
    return flag.starts_with("--") && flag != "--base" && flag != "--device" && flag != "--dtype";
  });
  if (routes && !stands_alone && !plan.library.empty()) flags.insert(flags.end(), {"--library", plan.library});
  if (!options.device.empty()) flags.insert(flags.end(), {"--device", options.device});
  if (!options.dtype.empty()) flags.insert(flags.end(), {"--dtype", options.dtype});
  if (options.allow_other_base) flags.push_back("--allow-other-base");
  flags.insert(flags.end(), own.begin(), own.end());
  return flags;
}

ModelOptions options_of(const RunMethod& method, const Plan& plan, const CompareOptions& options) {
  CLI::App app("a method");
  ModelFlags flags;
  add_model_flags(app, flags);
  std::vector<std::string> words(method.flags.rbegin(), method.flags.rend());  // CLI11 takes them from the back
  try {
    app.parse(words);
  } catch (const CLI::ParseError& error) {
    throw Failure({concat(plan.path, ": method ", printable(method.name), ": ", printable(error.what(), 300),
                          "; its options are those of skein eval"),
                   ErrorKind::kUsage});
  }
  CommonOptions common = options.common;
  common.seed = plan.seed;
  return model_options(flags, common);
}

// Methods of one base and one pool follow each other, so that each is read once.
std::string order_key(const RunMethod& method, const Plan& plan) {
  const auto value = [&](const std::string& flag) {
    const auto at = std::find(method.flags.begin(), method.flags.end(), flag);
    return at == method.flags.end() || at + 1 == method.flags.end() ? std::string() : *(at + 1);
  };
  const std::string base = value("--base");
  return concat(base == plan.base ? "" : base, "\n", value("--adapter"), value("--mixture"), "\n", value("--library"));
}

}  // namespace

std::vector<RunMethod> expand_methods(const Plan& plan, const CompareOptions& options) {
  std::vector<RunMethod> methods;
  for (const PlanMethod& method : plan.methods) {
    using enum PlanMethod::Kind;
    if (method.kind == kModel) {
      methods.push_back({method.name, complete_flags(method.flags, plan, options), words_of(method.flags), false, ""});
    } else if (method.kind == kMerge) {
      const std::string folder = join_path(join_path(options.out, "merged"), base_name(method.recipe));
      or_throw(merge_checkpoint(options.comm, method.recipe, folder, options.common.num_threads));
      methods.push_back(
          {method.name, complete_flags({"--base", folder}, plan, options), "merged by " + method.recipe, false, ""});
    } else {
      if (plan.library.empty()) throw Failure({concat(plan.path, ": \"every expert\" needs a \"library\"")});
      for (const LibraryEntry& entry : or_throw(open_library(real_env(), plan.library)).experts) {
        methods.push_back({"expert " + entry.name,
                           complete_flags({"--router", "single", "--expert", entry.name}, plan, options),
                           "the expert " + entry.name + " alone", true, entry.name});
      }
    }
  }
  std::map<std::string, int> seen;
  for (const RunMethod& method : methods) {
    if (++seen[method.name] > 1) throw Failure({concat(plan.path, ": two methods are named ", printable(method.name))});
    options_of(method, plan, options);  // a wrong option is better found before the work than hours into it
  }
  return methods;
}

ComparisonRun::ComparisonRun(const Plan& plan, const std::vector<AskedTask>& tasks, const CompareOptions& options,
                             PartialResults& results)
    : plan_(plan), tasks_(tasks), options_(options), results_(results) {
  eval_.scoring = plan.scoring == "t0"        ? Scoring::kT0
                  : plan.scoring == "lm-eval" ? Scoring::kLmEval
                                              : Scoring::kPhatgoose;
  eval_.over_templates = plan.over_templates == "median" ? OverTemplates::kMedian : OverTemplates::kMean;
  eval_.max_new_tokens = plan.max_new_tokens;
  eval_.max_batch_tokens = options.max_batch_tokens;
  eval_.comm = options.comm;
  eval_.stop = plan.stop;
  eval_.prompt = {
      .separator = plan.separator, .chat = plan.chat, .max_input = plan.max_input, .max_target = plan.max_target};
}

ComparisonRun::~ComparisonRun() = default;

// The method's model, the base kept where it is the same one. A first example is answered unmeasured: what is read and
// made on first use must not count as the first method's time.
void ComparisonRun::use(const RunMethod& method) {
  if (model_ != nullptr && used_ == method.flags) return;
  const ModelOptions options = options_of(method, plan_, options_);
  if (model_ != nullptr && loaded_base_ == options.base) {
    change_experts(real_env(), *model_, options);
  } else {
    model_.reset();
    model_ = std::make_unique<LoadedModel>(load_model(real_env(), options));
    loaded_base_ = options.base;
  }
  used_ = method.flags;
  evaluate(*model_, {tasks_.front().examples.front()}, eval_);
}

void ComparisonRun::answer(const RunMethod& method, std::size_t t) {
  const AskedTask& asked = tasks_[t];
  const std::string key = ComparisonRun::key(method.name, asked.task.name);
  if (results_.summary_of(key) != nullptr) return;
  use(method);
  const auto start = std::chrono::steady_clock::now();
  const TaskResult result = std::move(evaluate(*model_, asked.examples, eval_).front());
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  Json summary = {{"seconds", seconds.count()}, {"examples", asked.examples.size()}, {"score", result.score}};
  for (const auto& [name, value] : result.metrics) summary["metrics"][name] = value;
  if (model_->bank != nullptr) {
    const double bytes = model_->bank->compute().dtype == c10::ScalarType::Float ? 4 : 2;
    summary["megabytes"] = static_cast<double>(model_->bank->num_parameters()) * bytes / 1e6;
    if (model_->bank->num_experts() > 1 && !method.is_expert && options_.routing_examples > 0 && options_.is_root()) {
      const auto count = std::min(asked.examples.size(), static_cast<std::size_t>(options_.routing_examples));
      std::vector<Example> some;
      for (std::size_t i = 0; i < count; ++i) some.push_back(asked.examples[i * asked.examples.size() / count]);
      summary["routing"] = routing_map(*model_, some, eval_.prompt, options_.max_batch_tokens);
    }
  }
  std::vector<Json> lines;
  for (const ExampleResult& example : result.examples) {
    lines.push_back(result_line(example, method.name));
    if (options_.keep_examples) continue;
    lines.back().erase("prediction");
    lines.back().erase("target");
  }
  or_throw(results_.add_task(key, std::move(lines), summary));
  if (options_.is_root())
    log_info(concat(method.name, ", ", asked.task.name, ": ", std::round(1000 * result.score) / 10, " %"));
}

void ComparisonRun::run(const std::vector<RunMethod>& methods) {
  std::vector<const RunMethod*> order;
  for (const RunMethod& method : methods) order.push_back(&method);
  std::stable_sort(order.begin(), order.end(),
                   [&](const RunMethod* a, const RunMethod* b) { return order_key(*a, plan_) < order_key(*b, plan_); });
  for (const RunMethod* method : order) {
    for (std::size_t t = 0; t < tasks_.size(); ++t) answer(*method, t);
  }
}

double ComparisonRun::score(const RunMethod& method, const std::vector<std::size_t>& tasks) {
  double sum = 0;
  for (const std::size_t t : tasks) {
    answer(method, t);
    sum += results_.summary_of(key(method.name, tasks_[t].task.name))->value("score", 0.0);
  }
  return tasks.empty() ? 0 : sum / static_cast<double>(tasks.size());
}

std::vector<RunMethod> ComparisonRun::run_grid() {
  const MergeGrid& grid = plan_.merging;
  std::vector<RunMethod> methods;
  for (const MergeCell& cell : merge_cells(grid)) {
    std::vector<std::size_t> own;  // the held-in tasks of the cell's experts: the only ones that choose
    for (std::size_t t = 0; t < tasks_.size(); ++t) {
      for (const std::size_t e : cell.experts) {
        if (tasks_[t].task.own_expert == grid.experts[e].first) own.push_back(t);
      }
    }
    RunMethod best;
    double most = -1;
    const auto settings = merge_settings(grid.methods[cell.method]);
    for (const auto& setting : settings) {
      RunMethod merged{cell.name, {}, "", false, ""};
      for (std::size_t p = 0; p < setting.size(); ++p)
        merged.words += concat(p > 0 ? ", " : "", grid.methods[cell.method].parameters[p].name, " ", setting[p]);
      if (settings.size() > 1) merged.name = concat("trial: ", cell.name, ", ", merged.words);
      const std::string folder =
          concat(options_.out, "/merged/", cell.name, settings.size() > 1 ? ", " + merged.words : "");
      merged.flags = complete_flags({"--base", folder}, plan_, options_);
      const bool is_done = std::all_of(own.begin(), own.end(), [&](std::size_t t) {
        return results_.summary_of(key(merged.name, tasks_[t].task.name)) != nullptr;
      });
      if (!is_done || settings.size() == 1) {
        if (options_.is_root()) {
          or_throw(real_env().make_folders(parent_folder(folder)));
          or_throw(write_text_atomically(real_env(), folder + ".yml", merge_recipe(grid, cell, setting)));
        }
        or_throw(merge_checkpoint(options_.comm, folder + ".yml", folder, options_.common.num_threads));
      }
      const double found = settings.size() > 1 ? score(merged, own) : 0;
      if (found <= most) continue;
      most = found;
      best = merged;
    }
    best.name = cell.name;
    used_.clear();
    run({best});
    methods.push_back(best);
  }
  return methods;
}

}  // namespace skein
