#include "skein/cli/train_flags.h"

#include <CLI/CLI.hpp>

#include "skein/base/concat.h"
#include "skein/cli/prompt_flags.h"

namespace skein {
namespace {

constexpr const char* kTraining = "Training";
constexpr const char* kNeverLost = "Saving";

// A setting with a value in the paper: given on the command line it stays, else --paper sets it.
template <typename Value>
CLI::Option* add_ruled(CLI::App& command, TrainFlags& flags, const std::string& name, Value& value,
                       Value TrainOptions::*member, const std::string& help, const std::string& type) {
  CLI::Option* option = command.add_option(name, value, help)->type_name(type)->capture_default_str()->group(kTraining);
  flags.paper_rules.emplace_back(option,
                                 [&value, member](const TrainFlags::Paper& paper) { value = paper.train.*member; });
  return option;
}

CLI::Option* add_name(CLI::App& command, const std::string& name, std::string& value,
                      const std::vector<std::string>& names, const std::string& help) {
  return command.add_option(name, value, help)
      ->type_name("NAME")
      ->check(CLI::IsMember(names))
      ->capture_default_str()
      ->group(kTraining);
}

void add_paper(CLI::App& command, TrainFlags& flags) {
  const bool has_phatgoose = flags.trained == Trained::kGate || flags.is_lora();
  const bool has_mov = flags.trained != Trained::kGate && flags.trained != Trained::kExpert;
  std::vector<std::string> papers;
  std::string help = "Take every rule of a paper that is not given here:";
  if (has_phatgoose) {
    papers.push_back("phatgoose");
    help += " phatgoose (arXiv 2402.05859: 1000 steps for experts, 100 for gates, batch 1024 in micro-batches of 16)";
  }
  if (has_mov) {
    papers.push_back("mov");
    help += has_phatgoose ? ";" : "";
    help +=
        flags.trained == Trained::kFull
            ? " mov (arXiv 2309.05444's fully fine-tuned baseline: Adafactor at 1e-3, batch 256, 10,000 steps)"
            : " mov (arXiv 2309.05444: Adafactor at a constant 3e-4, batch 32, 500,000 steps, inputs of 1024 tokens, "
              "mean loss of each sequence, rank 4, the released code's routers)";
  }
  command.add_option("--paper", flags.paper, help)->type_name("PAPER")->check(CLI::IsMember(papers))->group(kTraining);
}

void add_optimiser(CLI::App& command, TrainFlags& flags) {
  TrainOptions& train = flags.train;
  CLI::Option* optimiser = add_name(command, "--optimiser,--optimizer", flags.optimiser, {"adamw", "adafactor"},
                                    "How gradients become updates");
  flags.paper_rules.emplace_back(
      optimiser, [&flags](const TrainFlags::Paper& paper) { flags.optimiser = optimiser_name(paper.train.optimiser); });
  add_ruled(command, flags, "--lr", train.learning_rate, &TrainOptions::learning_rate, "Learning rate", "RATE");
  add_ruled(command, flags, "--warmup", train.warmup_ratio, &TrainOptions::warmup_ratio,
            "Share of the steps over which the rate rises from 0", "SHARE");
  add_ruled(command, flags, "--weight-decay", train.weight_decay, &TrainOptions::weight_decay, "Weight decay", "RATE");
  add_ruled(command, flags, "--clip", train.clip_norm, &TrainOptions::clip_norm,
            "Global gradient norm to clip at; 0: none", "NORM");
  add_ruled(command, flags, "--adafactor-decay", train.adafactor_decay, &TrainOptions::adafactor_decay,
            "Adafactor: second moments keep 1 - step^-DECAY of their past", "DECAY");
  add_ruled(command, flags, "--update-clip", train.adafactor_threshold, &TrainOptions::adafactor_threshold,
            "Adafactor: largest root mean square of an update", "RMS");
  CLI::Option* scales = command
                            .add_flag("--scale-parameter,!--no-scale-parameter", train.scale_parameter,
                                      "Adafactor: multiply the rate by the size of a tensor's numbers")
                            ->group(kTraining);
  flags.paper_rules.emplace_back(
      scales, [&train](const TrainFlags::Paper& paper) { train.scale_parameter = paper.train.scale_parameter; });
  command
      .add_flag("--relative-step", train.relative_step,
                "Adafactor: its own rate, 1 / sqrt(step) and at most 0.01, instead of --lr")
      ->group(kTraining);
  command.add_flag("--no-factors", flags.whole_moments, "Adafactor: one second moment per number, as AdamW has")
      ->group(kTraining);
  CLI::Option* schedule = add_name(command, "--schedule", flags.schedule, {"constant", "linear", "cosine"},
                                   "After warm-up: constant, linear or cosine (to 0)");
  flags.paper_rules.emplace_back(
      schedule, [&flags](const TrainFlags::Paper& paper) { flags.schedule = schedule_name(paper.train.schedule); });
}

void add_batches(CLI::App& command, TrainFlags& flags) {
  TrainOptions& train = flags.train;
  add_ruled(command, flags, "--steps", train.steps, &TrainOptions::steps, "Optimiser steps", "N");
  add_ruled(command, flags, "--batch", train.batch, &TrainOptions::batch, "Sequences per step", "N");
  add_ruled(command, flags, "--micro-batch", train.micro_batch, &TrainOptions::micro_batch,
            "Sequences per forward pass (memory); 0: the whole batch", "N");
  CLI::Option* mean = add_name(command, "--loss-mean", flags.loss_mean, {"token", "microbatch", "sequence"},
                               "Loss is the mean over the step's target tokens (token), over tokens then micro-batches "
                               "(microbatch), or over tokens then sequences (sequence)");
  flags.paper_rules.emplace_back(
      mean, [&flags](const TrainFlags::Paper& paper) { flags.loss_mean = loss_mean_name(paper.train.loss_mean); });
  CLI::Option* sampling = add_name(
      command, "--sampling", flags.sampling, {"concatenated", "rates"},
      "Order of examples: all data shuffled together, or task by task at rates min(size, cap)^(1/temperature)");
  flags.paper_rules.emplace_back(sampling, [&flags](const TrainFlags::Paper& paper) {
    flags.sampling = paper.train.by_task_rates ? "rates" : "concatenated";
  });
  add_ruled(command, flags, "--task-cap", train.task_cap, &TrainOptions::task_cap,
            "With --sampling rates: examples at which a task's size is capped; 0: none", "N");
  add_ruled(command, flags, "--task-temperature", train.task_temperature, &TrainOptions::task_temperature,
            "With --sampling rates: 1 is proportional to size, higher gives small tasks more", "T");
  command
      .add_flag("--recompute", train.checkpoint_blocks,
                "Recompute activations in the backward pass: less memory, more time")
      ->group(kTraining);
}

void add_saving(CLI::App& command, TrainFlags& flags) {
  TrainOptions& train = flags.train;
  const auto plain = [&](const std::string& name, auto& value, const std::string& help, const std::string& type) {
    command.add_option(name, value, help)->type_name(type)->capture_default_str()->group(kNeverLost);
  };
  command
      .add_option("--valid", train.valid,
                  flags.trained == Trained::kGate ? "DATA to validate on; the last step is kept"
                                                  : "DATA to validate on; the best step is kept")
      ->type_name("DATA")
      ->group(kTraining);
  plain("--valid-every", train.valid_every, "Steps between validations", "N");
  plain("--valid-limit", train.valid_limit, "Examples of a validation; 0: all", "N");
  plain("--save-every", train.save_every, "Steps between saved states; 0: only on Ctrl-C", "N");
  plain("--save-minutes", train.save_minutes, "Minutes between saved states, beside --save-every; 0: by steps alone",
        "MINUTES");
  plain("--keep", train.keep, "Saved states kept: should the newest be damaged, the one before it is taken", "N");
  command
      .add_flag("--resume", train.resume,
                "Go on from the saved state of a run that was killed or interrupted; the result is "
                "that of an unbroken run")
      ->group(kNeverLost);
  command
      .add_option("--report", flags.report,
                  "Write a page: loss, learning rate, gradient norm, and of mixtures expert load and router entropy")
      ->type_name("FILE")
      ->group(kNeverLost);
  add_overwrite_option(command, flags.overwrite);
}

void add_lora(CLI::App& command, TrainFlags& flags) {
  const std::string group = "Expert";
  LoraInit& lora = flags.train.lora;
  const auto ruled = [&](CLI::Option* option, std::function<void(const TrainFlags::Paper&)> take) {
    flags.paper_rules.emplace_back(option->group(group), std::move(take));
  };
  if (flags.trained == Trained::kExpert) {
    command
        .add_option("--kind", flags.kind,
                    "What the expert is: a LoRA on linears, or (IA)3 vectors on keys, values and the feed-forward")
        ->type_name("KIND")
        ->check(CLI::IsMember({"lora", "ia3"}))
        ->capture_default_str()
        ->group(group);
  }
  ruled(command.add_option("--rank", lora.rank, "Rank R of the LoRA")
            ->type_name("R")
            ->check(CLI::PositiveNumber)
            ->capture_default_str(),
        [&lora](const TrainFlags::Paper& paper) { lora.rank = paper.train.lora.rank; });
  ruled(command.add_option("--alpha", lora.alpha, "The update is scaled by ALPHA / R")
            ->type_name("ALPHA")
            ->capture_default_str(),
        [&lora](const TrainFlags::Paper& paper) { lora.alpha = paper.train.lora.alpha; });
  ruled(command
            .add_option(
                "--init", flags.init,
                "First weights of A: phatgoose (normal, 0.01), mov (normal, 0.02) or peft (Kaiming uniform); B is 0")
            ->type_name("NAME")
            ->check(CLI::IsMember({"phatgoose", "mov", "peft"}))
            ->capture_default_str(),
        [&flags](const TrainFlags::Paper&) { flags.init = flags.paper; });
  command
      .add_option("--target-modules", lora.target_kinds,
                  "Linears to adapt, such as q_proj,v_proj; without it every linear of every block")
      ->type_name("NAME")
      ->delimiter(',')
      ->group(group);
}

void add_mixture(CLI::App& command, TrainFlags& flags) {
  const std::string group = "Mixture";
  MixtureConfig& config = flags.mixture.config;
  const bool is_mov = flags.trained == Trained::kMov;
  const auto ruled = [&](CLI::Option* option, std::function<void(const TrainFlags::Paper&)> take) {
    flags.paper_rules.emplace_back(option->capture_default_str()->group(group), std::move(take));
  };
  ruled(command.add_option("--experts", config.num_experts, "Experts")->type_name("N")->check(CLI::PositiveNumber),
        [&config](const TrainFlags::Paper& paper) { config.num_experts = paper.mixture.num_experts; });
  command
      .add_option("--top-k", config.top_k, "Experts per token; 0: all of them, weighted by their probabilities (soft)")
      ->type_name("K")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  command
      .add_flag("--renormalise,--renormalize", config.renormalises,
                "With --top-k: divide the chosen probabilities by their sum (the released code does not)")
      ->group(group);
  ruled(
      command
          .add_option("--router-input", flags.router_input,
                      is_mov ? "What a router reads: the block's input (hidden), as the formula has it; the projected "
                               "key or value of each head and the activated feed-forward (projected), as the released "
                               "code has it; or the mean embedding of the input (sentence)"
                             : "What a router reads: its linear's input (hidden), or the mean embedding of the input, "
                               "the same for every token and layer (sentence)")
          ->type_name("WHAT")
          ->check(is_mov ? CLI::IsMember({"hidden", "projected", "sentence"}) : CLI::IsMember({"hidden", "sentence"})),
      [&flags](const TrainFlags::Paper& paper) { flags.router_input = router_input_name(paper.mixture.router_input); });
  command.add_option("--balance", flags.train.balance_weight, "Weight of the load-balancing loss; with --top-k")
      ->type_name("WEIGHT")
      ->capture_default_str()
      ->group(group);
  command.add_option("--z-loss", flags.train.z_loss_weight, "Weight of the routers' z-loss")
      ->type_name("WEIGHT")
      ->capture_default_str()
      ->group(group);
  if (is_mov) return;
  ruled(command.add_option("--rank", config.rank, "Rank R of each expert")->type_name("R")->check(CLI::PositiveNumber),
        [&config](const TrainFlags::Paper& paper) { config.rank = paper.mixture.rank; });
  ruled(command.add_option("--alpha", config.alpha, "Updates are scaled by ALPHA / R")->type_name("ALPHA"),
        [&config](const TrainFlags::Paper& paper) { config.alpha = paper.mixture.alpha; });
  command
      .add_option("--mixes", flags.mixes,
                  "Add the experts' weighted outputs (as the released code), or mix A and B first (parameters, as the "
                  "formula reads)")
      ->type_name("WHAT")
      ->check(CLI::IsMember({"outputs", "parameters"}))
      ->capture_default_str()
      ->group(group);
  ruled(command
            .add_option("--target-modules", config.target_kinds,
                        "Linears with experts, such as q_proj,v_proj; without it every linear of every block")
            ->type_name("NAME")
            ->delimiter(','),
        [&flags](const TrainFlags::Paper&) { flags.released_places = true; });
  command
      .add_option("--freeze-experts", flags.mixture.frozen_library,
                  "Train routers alone, over the LoRA experts of this library")
      ->type_name("LIB")
      ->group(group);
}

void set_defaults(TrainFlags& flags) {
  MixtureConfig& config = flags.mixture.config;
  config.kind = flags.trained == Trained::kMov ? MixtureKind::kMov : MixtureKind::kMolora;
  flags.router_input = flags.trained == Trained::kMov ? "projected" : "hidden";
  switch (flags.trained) {
    case Trained::kGate:
      flags.train.steps = 100;
      break;
    case Trained::kMolora:
      flags.train.learning_rate = 1e-3;  // its updates are scaled by alpha / R = 4, not 1 / 16
      break;
    case Trained::kFull:
      flags.train.learning_rate = 5e-5;
      break;
    default:
      break;
  }
}

TrainFlags::Paper rules_of(const TrainFlags& flags) {
  TrainFlags::Paper paper;
  if (flags.paper == "phatgoose") {
    paper.train = flags.trained == Trained::kGate ? phatgoose_gate_options() : phatgoose_expert_options();
    return paper;
  }
  paper.train = mov_options();
  if (flags.trained == Trained::kFull) {  // methods: the T0 baseline
    paper.train.learning_rate = 1e-3;
    paper.train.batch = 256;
    paper.train.steps = 10000;
  }
  paper.mixture.num_experts = flags.trained == Trained::kMov ? 30 : 10;
  paper.mixture.router_input = flags.trained == Trained::kMov ? RouterInput::kProjected : RouterInput::kHidden;
  return paper;
}

}  // namespace

void add_train_flags(CLI::App& command, TrainFlags& flags) {
  set_defaults(flags);
  add_base_flags(command, flags.model);
  if (flags.trained != Trained::kFull) add_base_bits(command, flags.model);
  flags.model.needs_gradients = true;
  command.add_option("--data", flags.data, "DATA to train on")->type_name("DATA")->required();
  if (flags.trained == Trained::kGate) {
    command.add_option("--expert", flags.folder, "Folder of the expert")->type_name("DIR")->required();
  } else {
    command.add_option("--out", flags.folder, "Folder to write")->type_name("DIR")->required();
  }
  if (flags.is_lora()) add_lora(command, flags);
  if (flags.is_mixture()) add_mixture(command, flags);
  add_paper(command, flags);
  add_batches(command, flags);
  add_optimiser(command, flags);
  add_saving(command, flags);
  add_prompt_flags(command, flags.train.prompt);
  add_common_options(command, flags.common);
  for (const auto& [name, member] :
       {std::pair{"--max-input", &PromptOptions::max_input}, std::pair{"--max-target", &PromptOptions::max_target}}) {
    CLI::Option* option = command.get_option_no_throw(name);
    if (option == nullptr) continue;
    flags.paper_rules.emplace_back(option, [&flags, member = member](const TrainFlags::Paper& paper) {
      flags.train.prompt.*member = paper.train.prompt.*member;
    });
  }
}

void take_train_flags(TrainFlags& flags) {
  TrainOptions& train = flags.train;
  if (!flags.paper.empty()) {
    const TrainFlags::Paper paper = rules_of(flags);
    for (const auto& [option, take] : flags.paper_rules) {
      if (option->count() == 0) take(paper);
    }
  }
  train.schedule = or_throw(parse_schedule(flags.schedule));
  train.loss_mean = or_throw(parse_loss_mean(flags.loss_mean));
  train.optimiser = or_throw(parse_optimiser(flags.optimiser));
  train.by_task_rates = flags.sampling == "rates";
  train.factored = !flags.whole_moments;
  train.lora.a_std = flags.init == "phatgoose" ? 0.01 : flags.init == "mov" ? 0.02 : 0;
  train.seed = train.lora.seed = flags.mixture.init.seed = flags.common.seed;
  train.allow_other_base = flags.model.allow_other_base;
  if (flags.is_mixture()) {
    flags.mixture.config.router_input = or_throw(parse_router_input(flags.router_input));
    flags.mixture.config.mixes = or_throw(parse_mixes(flags.mixes));
    or_throw(check_mixture_config(flags.mixture.config));
  }
  or_throw(check_train_options(train));
}

}  // namespace skein
