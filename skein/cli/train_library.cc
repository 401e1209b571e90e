#include "skein/cli/train_library.h"

#include <CLI/CLI.hpp>

#include <chrono>
#include <optional>

#include "skein/base/concat.h"
#include "skein/base/interrupt.h"
#include "skein/base/log.h"
#include "skein/cli/library_plan.h"
#include "skein/cli/result_output.h"
#include "skein/cli/text_table.h"
#include "skein/dist/comm.h"
#include "skein/spec/expert_folder.h"
#include "skein/spec/library.h"
#include "skein/train/ranks.h"

namespace skein {
namespace {

struct FarmFlags {
  std::string plan;
  bool overwrite = false;
  CommonOptions common;
};

constexpr const char* kDone = "done";
constexpr const char* kFailed = "failed";
constexpr const char* kStopped = "stopped";

std::string loss_words(const TrainReport& report) {
  return concat("loss ", fixed(report.first_loss, 3), " -> ", fixed(report.last_loss, 3), " in ", report.steps,
                " steps");
}

// One expert and its gate, alone on this rank. Its outcome: {name, status, rank, expert, gate, message}.
Json train_one(const PlannedExpert& planned, const LoadedModel& model, int rank) {
  Json outcome = {{"name", planned.name}, {"status", kDone}, {"rank", rank}};
  try {
    const auto alone = make_single_comm();
    const TrainFlags &expert = *planned.expert, &gate = *planned.gate;
    const auto trainer = expert.kind == "ia3" ? &train_ia3 : &train_expert;
    const TrainReport trained =
        trainer(real_env(), *alone, model, expert.data, expert.folder, expert.train, /*overwrite=*/false);
    outcome["expert"] = report_to_json(trained);
    TrainReport gated;
    if (!trained.interrupted) {
      gated = train_gate(real_env(), *alone, model, gate.folder, gate.data, gate.train, /*overwrite=*/false);
      outcome["gate"] = report_to_json(gated);
    }
    if (trained.interrupted || gated.interrupted) {
      outcome["status"] = kStopped;
      log_info(concat(planned.name, ": stopped, its state is saved (rank ", rank, ")"));
    } else {
      log_info(concat(planned.name, ": expert ", loss_words(trained), ", gate ", loss_words(gated), ", ",
                      fixed(trained.seconds + gated.seconds, 1), " s (rank ", rank, ")"));
    }
  } catch (const std::exception& error) {
    const std::string text = error.what();
    outcome["status"] = kFailed;
    outcome["message"] = text.substr(0, text.find('\n'));
    log_warning(concat(planned.name, ": ", outcome["message"].get<std::string>(), " (rank ", rank, ")"));
  }
  return outcome;
}

// What is not trained yet costs its steps; decided by rank 0, known to all.
std::vector<std::int64_t> costs_of(const LibraryPlan& plan, Comm& comm) {
  std::vector<std::int64_t> costs;
  for (const PlannedExpert& expert : plan.experts) {
    const bool has_gate = real_env().exists(concat(plan.work, "/", expert.name, "/gates/phatgoose.safetensors"));
    costs.push_back(has_gate ? 0 : expert.cost());
  }
  comm.broadcast(std::as_writable_bytes(std::span(costs)), 0);
  return costs;
}

// All ranks' outcomes in the plan's order, at rank 0.
std::vector<Json> gathered(const LibraryPlan& plan, Comm& comm, const Json& own) {
  const std::string text = own.dump();
  std::vector<Json> outcomes;
  const auto parts = comm.gather(std::as_bytes(std::span(text)), 0);
  for (const PlannedExpert& expert : plan.experts) {
    for (const auto& part : parts) {
      const Json list = Json::parse(std::string(reinterpret_cast<const char*>(part.data()), part.size()));
      for (const Json& outcome : list) {
        if (outcome["name"] == expert.name) outcomes.push_back(outcome);
      }
    }
  }
  return outcomes;
}

void check_outcomes(const FarmFlags& flags, const LibraryPlan& plan, const std::vector<Json>& outcomes) {
  std::size_t num_done = 0;
  std::string failed;
  for (const Json& outcome : outcomes) {
    if (outcome["status"] == kDone) ++num_done;
    if (outcome["status"] == kFailed) failed += (failed.empty() ? "" : ", ") + outcome["name"].get<std::string>();
  }
  if (num_done == plan.experts.size()) return;
  const std::string counts = concat(num_done, " of ", plan.experts.size(), " experts are trained, in ", plan.work);
  if (!failed.empty()) {
    throw Failure({concat(counts, "; failed: ", failed,
                          "; when that is mended, the same command goes on: skein train library ", flags.plan)});
  }
  throw Failure(
      {concat("interrupted; ", counts, "; go on with: skein train library ", flags.plan), ErrorKind::kInterrupted});
}

// Made beside its experts, whole before it gets its name.
void write_library(const LibraryPlan& plan, const BaseModel& base) {
  Env& env = real_env();
  const std::string fresh = plan.work + "/.library";
  or_throw(env.remove_tree(fresh));
  Library library = or_throw(create_library(env, fresh, base));
  for (const PlannedExpert& expert : plan.experts) {
    or_throw(add_expert(env, library, base, concat(plan.work, "/", expert.name), {}));
  }
  or_throw(env.remove_tree(plan.out));  // there only with --overwrite
  or_throw(env.rename(fresh, plan.out));
  or_throw(env.remove_tree(plan.work));
}

// The library is there already: this plan's, or another that is in the way.
bool is_complete(const LibraryPlan& plan) {
  if (!real_env().exists(plan.out)) return false;
  const auto library = open_library(real_env(), plan.out);
  bool same = library.ok() && library->experts.size() == plan.experts.size();
  for (std::size_t i = 0; same && i < plan.experts.size(); ++i) same = library->experts[i].name == plan.experts[i].name;
  if (!same) throw Failure({concat(plan.out, " exists already; --overwrite replaces it")});
  return true;
}

int farm(FarmFlags& flags, Comm& comm) {
  LibraryPlan plan;
  LoadedModel model;
  bool done = false;
  together(comm, [&] {
    plan = read_library_plan(real_env(), flags.plan, flags.common);
    done = !flags.overwrite && is_complete(plan);
    if (done) return;
    if (flags.overwrite && is_root(comm)) or_throw(real_env().remove_tree(plan.work));
    ModelFlags base;
    base.base = plan.base;
    base.dtype = plan.dtype;
    base.device = plan.device;
    base.base_bits = plan.base_bits;
    base.needs_gradients = true;
    ModelOptions options = model_options(base, flags.common);
    options.recompute_blocks = plan.recompute;
    model = load_model(real_env(), options);
  });
  if (done) {
    if (is_root(comm)) log_info(plan.out + " is complete already");
    return 0;
  }
  const auto own = deal_out(costs_of(plan, comm), comm.size())[static_cast<std::size_t>(comm.rank())];
  Json outcomes = Json::array();
  for (const std::size_t job : own) {
    if (interrupted()) break;
    outcomes.push_back(train_one(plan.experts[job], model, comm.rank()));
  }
  const std::vector<Json> all = gathered(plan, comm, outcomes);
  on_root(comm, [&] {
    check_outcomes(flags, plan, all);
    write_library(plan, model.base);
  });
  if (!is_root(comm)) return 0;
  if (flags.common.json) print_json({{"library", plan.out}, {"experts", all}});
  log_info(concat("wrote ", plan.out, " with ", all.size(), all.size() == 1 ? " expert" : " experts",
                  "; next: skein eval --base ", plan.base, " --library ", plan.out, " --tasks ..."));
  return 0;
}

int train_library(FarmFlags& flags) {
  const auto comm = or_throw(make_comm());
  if (!is_root(*comm)) flags.common.progress = "none";
  try {
    return farm(flags, *comm);
  } catch (const Failure&) {
    if (is_root(*comm)) throw;  // the ranks have agreed on it: rank 0 says it
    return 0;
  }
}

}  // namespace

void add_train_library(CLI::App& train_verb, Job& job) {
  auto flags = std::make_shared<FarmFlags>();
  CLI::App& command =
      add_command(train_verb, "library", "Train the experts and gates of a plan, over the ranks, into a library",
                  "skein train library plan.yml\n"
                  "mpirun -n 4 skein train library plan.yml");
  command
      .add_option(
          "PLAN", flags->plan,
          "Which experts on which data, with which options (docs/formats/training-plan.md); the same command goes "
          "on after an interruption")
      ->required();
  add_overwrite_option(command, flags->overwrite);
  add_common_options(command, flags->common);
  command.callback([&job, flags] { job.run = [flags] { return train_library(*flags); }; });
}

}  // namespace skein
