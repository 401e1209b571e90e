// skein train: experts, gates, mixtures, and the multitask baselines.
#include <CLI/CLI.hpp>

#include <cmath>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/cli/prompt_flags.h"
#include "skein/cli/result_output.h"
#include "skein/cli/text_table.h"
#include "skein/cli/train_flags.h"
#include "skein/cli/train_library.h"
#include "skein/cli/train_page.h"
#include "skein/cli/verbs.h"
#include "skein/dist/comm.h"
#include "skein/train/mixture_trainer.h"
#include "skein/train/ranks.h"
#include "skein/train/thaw.h"
#include "skein/train/trainer.h"

namespace skein {
namespace {

// The command that goes on with an interrupted run, as it can be pasted.
std::string resume_command(const TrainFlags& flags, const std::vector<std::string>& typed) {
  std::string command;
  for (const std::string& word : typed) {
    const bool plain =
        !word.empty() &&
        word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%") ==
            std::string::npos;
    command +=
        (command.empty() ? "" : " ") + (plain ? word : "'" + CLI::detail::find_and_replace(word, "'", "'\\''") + "'");
  }
  return flags.train.resume ? command : command + " --resume";
}

// What skein train writes.
struct Trainer {
  Trained trained;
  const char* name;
  const char* summary;
  const char* example;
};

constexpr Trainer kTrainers[] = {
    {Trained::kExpert, "expert", "Train an expert, a LoRA or (IA)3 vectors, written as a PEFT adapter",
     "skein train expert --base models/smollm2.gguf --data sentiment.jsonl --out experts/sentiment --steps 80\n"
     "skein train expert --base BASE --data big.jsonl.gz --out experts/big --paper phatgoose --valid valid.jsonl\n"
     "mpirun -n 4 skein train expert --base BASE --data big.jsonl.gz --out experts/big --batch 64"},
    {Trained::kGate, "gate", "Train the PHATGOOSE gate of an expert and add it to its folder",
     "skein train gate --base models/smollm2.gguf --expert experts/sentiment --data sentiment.jsonl --steps 40"},
    {Trained::kMov, "mov", "Train a mixture of (IA)3 vectors and its routers together (MoV)",
     "skein train mov --base models/smollm2.gguf --data a.jsonl b.jsonl --out mixtures/mov --experts 10 --steps 200\n"
     "skein train mov --base T5 --data p3/*.jsonl.gz --out mixtures/mov30 --paper mov"},
    {Trained::kMolora, "molora", "Train a mixture of LoRAs and its routers together (MoLoRA)",
     "skein train molora --base models/smollm2.gguf --data a.jsonl b.jsonl --out mixtures/molora --experts 10 --rank "
     "4\n"
     "skein train molora --base models/smollm2.gguf --data a.jsonl b.jsonl --out mixtures/routers --freeze-experts "
     "pool"},
    {Trained::kLora, "lora", "Train one LoRA on a mixture of tasks: a baseline",
     "skein train lora --base models/smollm2.gguf --data a.jsonl b.jsonl --out baselines/lora --sampling rates "
     "--task-cap 2000"},
    {Trained::kIa3, "ia3", "Train one (IA)3 on a mixture of tasks: a baseline",
     "skein train ia3 --base models/smollm2.gguf --data a.jsonl b.jsonl --out baselines/ia3"},
    {Trained::kFull, "full", "Train every weight on a mixture of tasks: a baseline, written as a model folder",
     "skein train full --base models/smollm2.gguf --data a.jsonl b.jsonl --out baselines/full --lr 5e-5"},
};

// The linears where the released MoLoRA stands: one adapter for a gated pair, on the branch that is activated.
std::vector<std::string> released_places(const BackboneConfig& base) {
  if (!base.is_encoder_decoder()) return {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"};
  return {"q", "k", "v", "o", base.gated_ff ? "wi_0" : "wi", "wo"};
}

void add_mixture_facts(Json& json, const MixtureReport& report) {
  json["parameters_trained"] = report.parameters.trained();
  json["share_of_base"] = report.parameters.share();
  if (!report.specialisation.tasks.empty()) json["specialisation"] = specialisation_to_json(report.specialisation);
}

void print_report(const TrainFlags& flags, const MixtureReport& mixture) {
  const TrainReport& report = mixture.run;
  if (flags.common.json) {
    Json json = report_to_json(report);
    json["out"] = flags.folder;
    if (flags.is_mixture()) add_mixture_facts(json, mixture);
    print_json(json);
    return;
  }
  print_text(concat(flags.folder, ": loss ", fixed(report.first_loss, 3), " -> ", fixed(report.last_loss, 3), " in ",
                    report.steps, " steps, ", grouped(report.tokens), " tokens (", grouped(report.target_tokens),
                    " of targets), ", fixed(report.seconds, 1), " s\n"));
  if (mixture.specialisation.tasks.empty()) return;
  const Specialisation& measured = mixture.specialisation;
  const auto tasks = static_cast<double>(measured.tasks.size());
  print_text(concat("experts: mean cosine ", fixed(measured.mean_cosine, 3),
                    " (1: all the same); mutual information with ", measured.tasks.size(),
                    measured.tasks.size() == 1 ? " task " : " tasks ", fixed(measured.mutual_information, 4),
                    " of at most ", fixed(std::log(std::max(tasks, 1.0)), 4), " nats\n"));
}

void print_parameters(const ParameterCount& count) {
  log_info(concat("training ", grouped(count.trained()), " numbers (experts ", grouped(count.experts), ", routers ",
                  grouped(count.routers), "), ", fixed(100 * count.share(), 2), " % of the base's ",
                  grouped(count.base)));
}

MixtureReport run_trainer(TrainFlags& flags, Comm& comm, const LoadedModel& model) {
  MixtureReport report;
  const auto plain = [&](auto trainer) {
    report.run = trainer(real_env(), comm, model, flags.data, flags.folder, flags.train, flags.overwrite);
  };
  switch (flags.trained) {
    case Trained::kGate:
      report.run = train_gate(real_env(), comm, model, flags.folder, flags.data, flags.train, flags.overwrite);
      break;
    case Trained::kMov:
    case Trained::kMolora:
      if (flags.released_places) flags.mixture.config.target_kinds = released_places(model.base.config);
      if (flags.mixture.frozen_library.empty()) {
        or_throw(mixture_slots(flags.mixture.config, model.backbone->slots()));
        if (is_root(comm)) print_parameters(count_parameters(flags.mixture.config, model.base.config));
      }
      report =
          train_mixture(real_env(), comm, model, flags.data, flags.folder, flags.mixture, flags.train, flags.overwrite);
      break;
    case Trained::kFull:
      if (is_root(comm))
        log_info(concat("training all ", grouped(base_parameters(model.base.config)), " numbers of the base"));
      plain(&train_full);
      break;
    case Trained::kIa3:
      plain(&train_ia3);
      break;
    case Trained::kExpert:
    case Trained::kLora:
      flags.kind == "ia3" ? plain(&train_ia3) : plain(&train_expert);
      break;
  }
  return report;
}

std::string next_step(const TrainFlags& flags) {
  const std::string& base = flags.model.base;
  switch (flags.trained) {
    case Trained::kExpert:
      return concat("next: skein train gate --base ", base, " --expert ", flags.folder, " --data ...");
    case Trained::kGate:
      return concat("next: skein library add LIB ", flags.folder);
    case Trained::kMov:
    case Trained::kMolora:
      return concat("next: skein eval --base ", base, " --mixture ", flags.folder, " --tasks ...");
    case Trained::kLora:
    case Trained::kIa3:
      return concat("next: skein eval --base ", base, " --adapter ", flags.folder, " --tasks ...");
    case Trained::kFull:
      return concat("next: skein eval --base ", flags.folder, " --tasks ...");
  }
  return "";
}

void write_report_page(const TrainFlags& flags) {
  const std::string log = join_path(flags.folder, flags.trained == Trained::kGate ? "gate_log.jsonl" : "log.jsonl");
  const std::string text = or_throw(read_text_file(real_env(), log));
  or_throw(write_text_atomically(real_env(), flags.report, train_page(base_name(flags.folder), text)));
  log_info("wrote " + flags.report);
}

int train_together(TrainFlags& flags, Comm& comm, const std::vector<std::string>& typed) {
  unescape_separator(flags.train.prompt);
  LoadedModel model;
  together(comm, [&] {
    ModelOptions options = model_options(flags.model, flags.common);
    take_train_flags(flags);
    refuse_existing(flags.report, flags.overwrite || flags.train.resume);
    options.recompute_blocks = flags.train.checkpoint_blocks;
    flags.train.program_version = SKEIN_VERSION;
    model = load_model(real_env(), options);
  });
  const MixtureReport report = run_trainer(flags, comm, model);
  if (report.run.interrupted) {
    throw Failure({concat("interrupted after step ", report.run.steps, " of ", flags.train.steps, ", saved in ",
                          report.run.state_folder, "; go on with: ", resume_command(flags, typed)),
                   ErrorKind::kInterrupted});
  }
  if (!is_root(comm)) return 0;
  if (!flags.report.empty()) write_report_page(flags);
  print_report(flags, report);
  log_info(next_step(flags));
  return 0;
}

int train(TrainFlags& flags, const std::vector<std::string>& typed) {
  const auto comm = or_throw(make_comm());
  if (!is_root(*comm)) flags.common.progress = "none";
  try {
    return train_together(flags, *comm, typed);
  } catch (const Failure&) {
    // The ranks have agreed on it: rank 0 says it, and its exit code is the job's.
    if (is_root(*comm)) throw;
    return 0;
  }
}

void add_train_command(CLI::App& verb, Job& job, const Trainer& trainer) {
  auto flags = std::make_shared<TrainFlags>();
  flags->trained = trainer.trained;
  CLI::App& command = add_command(verb, trainer.name, trainer.summary, trainer.example);
  add_train_flags(command, *flags);
  command.callback([&job, flags] { job.run = [&job, flags] { return train(*flags, job.typed); }; });
}

}  // namespace

void add_train_verb(CLI::App& program, Job& job) {
  CLI::App& verb = add_command(program, "train", "Train experts, gates, mixtures and their baselines", "");
  verb.require_subcommand(1);
  for (const Trainer& trainer : kTrainers) add_train_command(verb, job, trainer);
  add_train_library(verb, job);
}

}  // namespace skein
