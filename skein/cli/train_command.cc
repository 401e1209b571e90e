// skein train expert, skein train gate.
#include <CLI/CLI.hpp>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/cli/model_flags.h"
#include "skein/cli/prompt_flags.h"
#include "skein/cli/result_output.h"
#include "skein/cli/text_table.h"
#include "skein/cli/verbs.h"
#include "skein/train/options.h"
#include "skein/train/trainer.h"

namespace skein {
namespace {

enum class Trained { kExpert, kGate };

struct TrainFlags {
  Trained trained = Trained::kExpert;
  ModelFlags model;
  CommonOptions common;
  std::vector<std::string> data;
  std::string folder;  // --out of an expert, --expert of a gate
  bool overwrite = false;
  std::string paper;
  std::string init = "phatgoose";
  std::string schedule = "constant";
  std::string loss_mean = "token";
  TrainOptions train;
  // One per setting that --paper fixes: its option, and how to take the paper's value when the option was not given.
  std::vector<std::pair<CLI::Option*, std::function<void(const TrainOptions& paper)>>> paper_rules;
};

// A setting with a value in the paper: given on the command line it stays, else --paper sets it.
template <typename Value>
CLI::Option* add_ruled(CLI::App& command, TrainFlags& flags, const std::string& name, Value& value,
                       Value TrainOptions::*member, const std::string& help, const std::string& type) {
  CLI::Option* option =
      command.add_option(name, value, help)->type_name(type)->capture_default_str()->group("Training");
  flags.paper_rules.emplace_back(option, [&value, member](const TrainOptions& paper) { value = paper.*member; });
  return option;
}

void add_training_options(CLI::App& command, TrainFlags& flags) {
  TrainOptions& train = flags.train;
  const std::string group = "Training";
  command
      .add_option("--paper", flags.paper,
                  "Take every rule of a paper that is not given here: phatgoose (arXiv 2402.05859: "
                  "1000 steps for experts, 100 for gates, batch 1024 in micro-batches of 16)")
      ->type_name("PAPER")
      ->check(CLI::IsMember({"phatgoose"}))
      ->group(group);
  add_ruled(command, flags, "--steps", train.steps, &TrainOptions::steps, "Optimiser steps", "N");
  add_ruled(command, flags, "--batch", train.batch, &TrainOptions::batch, "Sequences per step", "N");
  add_ruled(command, flags, "--micro-batch", train.micro_batch, &TrainOptions::micro_batch,
            "Sequences per forward pass (memory); 0: the whole batch", "N");
  add_ruled(command, flags, "--lr", train.learning_rate, &TrainOptions::learning_rate, "Learning rate of AdamW",
            "RATE");
  add_ruled(command, flags, "--warmup", train.warmup_ratio, &TrainOptions::warmup_ratio,
            "Share of the steps over which the rate rises from 0", "SHARE");
  add_ruled(command, flags, "--weight-decay", train.weight_decay, &TrainOptions::weight_decay, "Weight decay of AdamW",
            "RATE");
  add_ruled(command, flags, "--clip", train.clip_norm, &TrainOptions::clip_norm,
            "Global gradient norm to clip at; 0: none", "NORM");
  CLI::Option* schedule =
      command.add_option("--schedule", flags.schedule, "After warm-up: constant, linear or cosine (to 0)")
          ->type_name("NAME")
          ->check(CLI::IsMember({"constant", "linear", "cosine"}))
          ->capture_default_str()
          ->group(group);
  flags.paper_rules.emplace_back(
      schedule, [&flags](const TrainOptions& paper) { flags.schedule = schedule_name(paper.schedule); });
  CLI::Option* mean =
      command
          .add_option("--loss-mean", flags.loss_mean,
                      "Loss is the mean over the step's target tokens (token), "
                      "over tokens then micro-batches (microbatch), or over tokens then sequences (sequence)")
          ->type_name("NAME")
          ->check(CLI::IsMember({"token", "microbatch", "sequence"}))
          ->capture_default_str()
          ->group(group);
  flags.paper_rules.emplace_back(
      mean, [&flags](const TrainOptions& paper) { flags.loss_mean = loss_mean_name(paper.loss_mean); });

  command
      .add_flag("--recompute", train.checkpoint_blocks,
                "Recompute activations in the backward pass: less memory, more time")
      ->group(group);
  command
      .add_option("--valid", train.valid,
                  flags.trained == Trained::kExpert ? "DATA to validate on; the best step is kept"
                                                    : "DATA to validate on; the last step is kept")
      ->type_name("DATA")
      ->group(group);
  command.add_option("--valid-every", train.valid_every, "Steps between validations")
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command.add_option("--valid-limit", train.valid_limit, "Examples of a validation; 0: all")
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command.add_option("--save-every", train.save_every, "Steps between saved states; 0: only on Ctrl-C")
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_flag("--resume", train.resume,
                "Go on from the saved state of a run that was killed or interrupted; the result is "
                "that of an unbroken run")
      ->group(group);
  add_overwrite_option(command, flags.overwrite);
}

void add_expert_options(CLI::App& command, TrainFlags& flags) {
  const std::string group = "Expert";
  LoraInit& lora = flags.train.lora;
  const auto ruled = [&](CLI::Option* option, std::function<void(const TrainOptions&)> take) {
    flags.paper_rules.emplace_back(option->group(group), std::move(take));
  };
  ruled(command.add_option("--rank", lora.rank, "Rank R of the LoRA")
            ->type_name("R")
            ->check(CLI::PositiveNumber)
            ->capture_default_str(),
        [&lora](const TrainOptions& paper) { lora.rank = paper.lora.rank; });
  ruled(command.add_option("--alpha", lora.alpha, "The update is scaled by ALPHA / R")
            ->type_name("ALPHA")
            ->capture_default_str(),
        [&lora](const TrainOptions& paper) { lora.alpha = paper.lora.alpha; });
  ruled(command
            .add_option("--init", flags.init,
                        "First weights of A: phatgoose (normal, 0.01) or peft (Kaiming uniform); B is 0")
            ->type_name("NAME")
            ->check(CLI::IsMember({"phatgoose", "peft"}))
            ->capture_default_str(),
        [&flags](const TrainOptions&) { flags.init = "phatgoose"; });
  command
      .add_option("--target-modules", lora.target_kinds,
                  "Linears to adapt, such as q_proj,v_proj; without it every linear of every block")
      ->type_name("NAME")
      ->delimiter(',')
      ->group(group);
}

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

void take_rules(TrainFlags& flags) {
  if (!flags.paper.empty()) {
    const TrainOptions paper =
        flags.trained == Trained::kExpert ? phatgoose_expert_options() : phatgoose_gate_options();
    for (const auto& [option, take] : flags.paper_rules) {
      if (option->count() == 0) take(paper);
    }
  }
  flags.train.schedule = or_throw(parse_schedule(flags.schedule));
  flags.train.loss_mean = or_throw(parse_loss_mean(flags.loss_mean));
  flags.train.lora.a_std = flags.init == "phatgoose" ? 0.01 : 0;
  flags.train.seed = flags.train.lora.seed = flags.common.seed;
  flags.train.allow_other_base = flags.model.allow_other_base;
  or_throw(check_train_options(flags.train));
}

void print_report(const TrainFlags& flags, const TrainReport& report) {
  if (flags.common.json) {
    Json json = {{"out", flags.folder},
                 {"steps", report.steps},
                 {"first_loss", report.first_loss},
                 {"last_loss", report.last_loss},
                 {"tokens", report.tokens},
                 {"target_tokens", report.target_tokens},
                 {"inputs_cut", report.inputs_cut},
                 {"seconds", report.seconds}};
    if (report.best_step >= 0) {
      json["best_step"] = report.best_step;
      json["valid_loss"] = report.best_valid_loss;
    }
    print_json(json);
    return;
  }
  print_text(concat(flags.folder, ": loss ", fixed(report.first_loss, 3), " -> ", fixed(report.last_loss, 3), " in ",
                    report.steps, " steps, ", grouped(report.tokens), " tokens (", grouped(report.target_tokens),
                    " of targets), ", fixed(report.seconds, 1), " s\n"));
}

int train(TrainFlags& flags, const std::vector<std::string>& typed) {
  ModelOptions options = model_options(flags.model, flags.common);
  unescape_separator(flags.train.prompt);
  take_rules(flags);
  options.recompute_blocks = flags.train.checkpoint_blocks;
  flags.train.program_version = SKEIN_VERSION;
  const LoadedModel model = load_model(real_env(), options);
  const bool is_expert = flags.trained == Trained::kExpert;
  const TrainReport report =
      is_expert ? train_expert(real_env(), model, flags.data, flags.folder, flags.train, flags.overwrite)
                : train_gate(real_env(), model, flags.folder, flags.data, flags.train, flags.overwrite);
  if (report.interrupted) {
    throw Failure({concat("interrupted after step ", report.steps, " of ", flags.train.steps, ", saved in ",
                          report.state_folder, "; go on with: ", resume_command(flags, typed)),
                   ErrorKind::kInterrupted});
  }
  print_report(flags, report);
  log_info(is_expert
               ? concat("next: skein train gate --base ", flags.model.base, " --expert ", flags.folder, " --data ...")
               : concat("next: skein library add LIB ", flags.folder));
  return 0;
}

void add_train_command(CLI::App& verb, Job& job, Trained trained) {
  auto flags = std::make_shared<TrainFlags>();
  flags->trained = trained;
  const bool is_expert = trained == Trained::kExpert;
  CLI::App& command = is_expert
                          ? add_command(verb, "expert", "Train a LoRA expert, written as a PEFT adapter",
                                        "skein train expert --base models/smollm2.gguf --data sentiment.jsonl --out "
                                        "experts/sentiment --steps 80\n"
                                        "skein train expert --base BASE --data big.jsonl.gz --out experts/big --paper "
                                        "phatgoose --valid valid.jsonl")
                          : add_command(verb, "gate", "Train the PHATGOOSE gate of an expert and add it to its folder",
                                        "skein train gate --base models/smollm2.gguf --expert experts/sentiment --data "
                                        "sentiment.jsonl --steps 40");
  add_base_flags(command, flags->model);
  command.add_option("--data", flags->data, "DATA to train on")->type_name("DATA")->required();
  if (is_expert) {
    command.add_option("--out", flags->folder, "Folder to write the expert to")->type_name("DIR")->required();
    add_expert_options(command, *flags);
  } else {
    command.add_option("--expert", flags->folder, "Folder of the expert")->type_name("DIR")->required();
    flags->train.steps = 100;
  }
  add_training_options(command, *flags);
  add_prompt_flags(command, flags->train.prompt);
  add_common_options(command, flags->common);
  command.callback([&job, flags] { job.run = [&job, flags] { return train(*flags, job.typed); }; });
}

}  // namespace

void add_train_verb(CLI::App& program, Job& job) {
  CLI::App& verb = add_command(program, "train", "Train experts and their gates", "");
  verb.require_subcommand(1);
  add_train_command(verb, job, Trained::kExpert);
  add_train_command(verb, job, Trained::kGate);
}

}  // namespace skein
