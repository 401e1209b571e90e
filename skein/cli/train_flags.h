// The options of skein train, and what --paper and a command's own defaults make of them.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "skein/cli/model_flags.h"
#include "skein/train/mixture_trainer.h"
#include "skein/train/options.h"

namespace skein {

enum class Trained { kExpert, kGate, kMov, kMolora, kLora, kIa3, kFull };

struct TrainFlags {
  Trained trained = Trained::kExpert;
  ModelFlags model;
  CommonOptions common;
  std::vector<std::string> data;
  std::string folder;  // --out, or --expert of a gate
  bool overwrite = false;
  std::string report;         // --report: a page
  std::string kind = "lora";  // of an expert
  std::string paper;
  std::string init = "phatgoose";
  std::string schedule = "constant";
  std::string loss_mean = "token";
  std::string optimiser = "adamw";
  std::string sampling = "concatenated";
  bool whole_moments = false;  // --no-factors
  std::string router_input, mixes = "outputs";
  bool released_places = false;  // MoLoRA: the linears of the released code, by the base's own names
  MixtureRequest mixture;
  TrainOptions train;
  // One per setting that --paper fixes: its option, and how to take the paper's value when the option was not given.
  struct Paper {
    TrainOptions train;
    MixtureConfig mixture;
  };
  std::vector<std::pair<CLI::Option*, std::function<void(const Paper&)>>> paper_rules;

  bool is_mixture() const { return trained == Trained::kMov || trained == Trained::kMolora; }
  bool is_lora() const { return trained == Trained::kExpert || trained == Trained::kLora; }
};

// Defaults of the command, then every option.
void add_train_flags(CLI::App& command, TrainFlags& flags);
// After the line was read: the paper's rules, names turned into settings. Throws Failure (kUsage).
void take_train_flags(TrainFlags& flags);

}  // namespace skein
