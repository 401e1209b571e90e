// skein gates: gates for experts that came without.
#include <c10/core/InferenceMode.h>
#include <CLI/CLI.hpp>

#include <map>

#include "skein/base/concat.h"
#include "skein/base/interrupt.h"
#include "skein/base/log.h"
#include "skein/base/progress.h"
#include "skein/cli/model_flags.h"
#include "skein/cli/prompt_flags.h"
#include "skein/cli/result_output.h"
#include "skein/cli/verbs.h"
#include "skein/infer/prompt.h"
#include "skein/infer/text_hints.h"
#include "skein/route/mean_inputs.h"
#include "skein/route/spectral_gates.h"
#include "skein/spec/library.h"
#include "skein/train/trainer.h"

namespace skein {
namespace {

struct GatesFlags {
  ModelFlags model;
  CommonOptions common;
  std::string library, method;
  std::vector<std::string> experts, data, descriptions;
  bool overwrite = false;
  ArrowOptions arrow;
  SpectralOptions spectr;
  std::int64_t limit = 1000;
  TrainOptions train;
};

constexpr std::int64_t kBatchTokens = 2048;

// EXPERT=VALUE, several for one expert or one for each.
std::map<std::string, std::vector<std::string>> by_expert(const std::vector<std::string>& entries,
                                                          const std::string& option) {
  std::map<std::string, std::vector<std::string>> result;
  for (const std::string& entry : entries) {
    const std::size_t at = entry.find('=');
    if (at == std::string::npos || at == 0) {
      throw Failure(
          {concat(option, " ", printable(entry), "; expected EXPERT=..., such as news=news.jsonl"), ErrorKind::kUsage});
    }
    result[entry.substr(0, at)].push_back(entry.substr(at + 1));
  }
  return result;
}

std::vector<std::string> chosen_experts(const GatesFlags& flags, const Library& library) {
  std::vector<std::string> names;
  for (const LibraryEntry& entry : library.experts) names.push_back(entry.name);
  if (flags.experts.empty()) return names;
  for (const std::string& name : flags.experts) {
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      throw Failure({concat("no expert ", printable(name), " in ", flags.library), ErrorKind::kUsage});
    }
  }
  return flags.experts;
}

// The mean inputs of the expert's modules over its own examples, with the expert at work.
GateFile average_activation(const GatesFlags& flags, LoadedModel& model, const std::string& folder,
                            const std::vector<std::string>& data) {
  std::vector<Example> examples = or_throw(read_examples(real_env(), data));
  examples.resize(std::min<std::size_t>(examples.size(), static_cast<std::size_t>(flags.limit)));
  ModelOptions options;
  options.adapter = folder;
  options.allow_other_base = flags.model.allow_other_base;
  options.compute = model.backbone->compute();
  change_experts(real_env(), model, options);
  const c10::InferenceMode inference;
  const MeanInputs means(*model.filler, static_cast<int>(model.backbone->slots().size()));
  Progress progress("mean inputs", static_cast<std::int64_t>(examples.size()), "examples");
  const bool encoder_decoder = model.base.config.is_encoder_decoder();
  std::vector<SequenceInput> sources, sequences;
  std::int64_t num_tokens = 0;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    if (interrupted()) throw Failure({"interrupted; no gate was written for this expert", ErrorKind::kInterrupted});
    EncodedExample encoded = encode_example(examples[i], *model.tokenizer, model.base.config, flags.train.prompt);
    std::vector<TokenId> stream = encoded.input;
    if (encoder_decoder) {
      sources.push_back({.tokens = encoded.input});
      stream = {static_cast<TokenId>(model.base.config.decoder_start_token)};
    }
    stream.insert(stream.end(), encoded.target.begin(), encoded.target.end() - 1);
    num_tokens += static_cast<std::int64_t>(encoded.input.size() + stream.size());
    sequences.push_back({.tokens = std::move(stream), .source = static_cast<std::int64_t>(sources.size()) - 1});
    if (num_tokens < kBatchTokens && i + 1 < examples.size()) continue;
    ForwardState state{&means, nullptr};
    const c10::Device device = model.backbone->compute().device;
    EncodedSource source;
    if (encoder_decoder) source = model.backbone->encode(pack(sources, device), state);
    model.backbone->forward(pack(sequences, device), encoder_decoder ? &source : nullptr, state);
    progress.update(static_cast<std::int64_t>(i + 1));
    sources.clear();
    sequences.clear();
    num_tokens = 0;
  }
  return means.to_gate(or_throw(read_lora_adapter(real_env(), folder, model.backbone->slots())));
}

// Examples and description of an expert, as retrieval and task-description look for it.
void write_texts(const GatesFlags& flags, const SentenceEncoder& encoder, const std::string& folder,
                 const std::vector<std::string>& data, const std::string& description) {
  std::vector<Example> examples;
  if (!data.empty()) examples = or_throw(read_examples(real_env(), data));
  examples.resize(std::min<std::size_t>(examples.size(), static_cast<std::size_t>(flags.limit)));
  or_throw(write_expert_texts(real_env(), folder, embed_expert(encoder, examples, description)));
}

// One expert's gate, written into its folder.
void fit_one(GatesFlags& flags, const std::string& folder, LoadedModel* model, const std::vector<std::string>& data,
             const BaseModel& base, const std::string& fingerprint) {
  if (flags.method == "phatgoose") {
    const TrainReport report = train_gate(real_env(), *make_single_comm(), *model, folder, data, flags.train, flags.overwrite);
    if (report.interrupted) {
      throw Failure({concat("interrupted after step ", report.steps, ", saved in ", report.state_folder,
                            "; go on with: skein train gate --expert ", folder, " --resume ..."),
                     ErrorKind::kInterrupted});
    }
    return;
  }
  const std::vector<SlotName> slots = slot_names(base.config);
  GateFile gate;
  if (flags.method == "average-activation") {
    gate = average_activation(flags, *model, folder, data);
  } else {
    const LoraAdapter adapter = or_throw(read_lora_adapter(real_env(), folder, slots));
    gate =
        flags.method == "arrow" ? arrow_gate(adapter, slots, flags.arrow) : spectr_gate(adapter, slots, flags.spectr);
  }
  gate.base_fingerprint = fingerprint;
  or_throw(write_gate(real_env(), folder, gate, slots));
}

// What would be written for an expert.
std::string output_of(const GatesFlags& flags, const Library& library, const std::string& name) {
  const std::string file = flags.method == "retrieval" ? kTextsFile : concat("gates/", flags.method, ".safetensors");
  return join_path(library.folder_of(name), file);
}

void check_fit(const GatesFlags& flags, const Library& library, const std::vector<std::string>& experts) {
  const bool needs_data = flags.method == "phatgoose" || flags.method == "average-activation";
  const bool reads_data = needs_data || flags.method == "retrieval";
  const auto data = by_expert(flags.data, "--data"), descriptions = by_expert(flags.descriptions, "--description");
  if (!reads_data && !data.empty()) {
    throw Failure(
        {concat("--data with --method ", flags.method, ", which reads the weights alone"), ErrorKind::kUsage});
  }
  if (flags.method != "retrieval" && !descriptions.empty()) {
    throw Failure(
        {concat("--description with --method ", flags.method, "; only retrieval reads it"), ErrorKind::kUsage});
  }
  for (const std::string& name : experts) {
    refuse_existing(output_of(flags, library, name), flags.overwrite);
    const bool is_described = flags.method == "retrieval" && descriptions.contains(name);
    if (reads_data && !is_described && !data.contains(name)) {
      throw Failure({concat("--method ", flags.method, " needs the data of ", printable(name), ": --data ",
                            printable(name), "=DATA, or name the experts to fit with --only"),
                     ErrorKind::kUsage});
    }
  }
}

void check_fingerprint(const GatesFlags& flags, const Library& library, const BaseModel& base,
                       const std::string& fingerprint) {
  if (fingerprint == library.base_fingerprint || flags.model.allow_other_base) return;
  throw Failure({concat(base.path, ": has fingerprint ", fingerprint, "; the library ", library.path, " is of base ",
                        library.base_fingerprint, "; another base (--allow-other-base to insist)")});
}

int fit(GatesFlags& flags) {
  Library library = or_throw(open_library(real_env(), flags.library));
  if (flags.model.base.empty()) flags.model.base = library.base_hint;
  const std::vector<std::string> experts = chosen_experts(flags, library);
  check_fit(flags, library, experts);
  ModelOptions options = model_options(flags.model, flags.common);
  options.library.clear();
  flags.arrow.seed = flags.train.seed = flags.common.seed;
  flags.train.allow_other_base = flags.model.allow_other_base;
  LoadedModel model;
  std::shared_ptr<const SentenceEncoder> encoder;
  std::string fingerprint;
  if (flags.method == "retrieval") {
    encoder = SentenceEncoder::load(real_env(), flags.model.sentence_encoder);
  } else {
    const bool runs = flags.method == "phatgoose" || flags.method == "average-activation";
    if (runs) model = load_model(real_env(), options);
    if (!runs) model.base = or_throw(open_base_model(real_env(), options.base));
    fingerprint = or_throw(base_fingerprint(real_env(), model.base));
    check_fingerprint(flags, library, model.base, fingerprint);
  }
  auto data = by_expert(flags.data, "--data"), descriptions = by_expert(flags.descriptions, "--description");
  Progress progress("gates", static_cast<std::int64_t>(experts.size()), "experts");
  for (std::size_t i = 0; i < experts.size(); ++i) {
    const std::string& name = experts[i];
    if (interrupted())
      throw Failure({concat("interrupted; ", i, " experts have their gates"), ErrorKind::kInterrupted});
    if (encoder != nullptr) {
      write_texts(flags, *encoder, library.folder_of(name), data[name],
                  descriptions.contains(name) ? descriptions[name].back() : "");
    } else {
      fit_one(flags, library.folder_of(name), &model, data[name], model.base, fingerprint);
    }
    or_throw(record_files(real_env(), library, name));
    progress.update(static_cast<std::int64_t>(i + 1));
  }
  if (flags.common.json) print_json({{"library", flags.library}, {"method", flags.method}, {"experts", experts}});
  log_info(concat(flags.method, " gates of ", experts.size(), experts.size() == 1 ? " expert" : " experts",
                  "; next: --router ", flags.method));
  return 0;
}

}  // namespace

void add_gates_verb(CLI::App& program, Job& job) {
  CLI::App& verb = add_command(program, "gates", "Gates for experts that came without", "");
  verb.require_subcommand(1);
  auto flags = std::make_shared<GatesFlags>();
  CLI::App& command =
      add_command(verb, "fit", "Make gates of a kind for the experts of a library",
                  "skein gates fit pool --method arrow\n"
                  "skein gates fit pool --method average-activation --data news=news.jsonl --only news");
  command.add_option("LIB", flags->library, "Library folder")->required();
  command
      .add_option(
          "--method", flags->method,
          "arrow or spectr (of the weights alone), average-activation (mean inputs on the expert's data), "
          "phatgoose (trained on it) or retrieval (sentence embeddings of it, which task-description reads too)")
      ->type_name("METHOD")
      ->check(CLI::IsMember({"phatgoose", "arrow", "spectr", "average-activation", "retrieval"}))
      ->required();
  command.add_option("--only", flags->experts, "These experts; without it all")->type_name("NAME")->delimiter(',');
  command.add_option("--data", flags->data, "An expert's examples: EXPERT=DATA, once for each")->type_name("NAME=DATA");
  command.add_option("--limit", flags->limit, "average-activation, retrieval: examples per expert")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      .add_option("--description", flags->descriptions,
                  "retrieval: what an expert is for: EXPERT=TEXT, once for each; without it the mean of its examples")
      ->type_name("NAME=TEXT");
  command
      .add_option("--sentence-encoder", flags->model.sentence_encoder,
                  "retrieval: a sentence encoder's folder (all-MiniLM-L6-v2)")
      ->type_name("DIR")
      ->capture_default_str();
  command.add_flag("--power-iteration", flags->arrow.by_power_iteration,
                   "arrow: PEFT's power iteration from a random start (--seed) instead of the exact direction");
  command.add_option("--iterations", flags->arrow.steps, "arrow: steps of the power iteration")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--directions", flags->spectr.directions, "spectr: singular directions to keep; 0: all")
      ->type_name("G")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--power", flags->spectr.power,
                  "spectr: power of the singular values folded into the directions: 1 SpectR, 0 SMILE")
      ->type_name("P")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  TrainOptions& train = flags->train;
  train.steps = 100;
  command.add_option("--steps", train.steps, "phatgoose: optimiser steps")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--batch", train.batch, "phatgoose: sequences per step")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--micro-batch", train.micro_batch, "phatgoose: sequences per forward pass; 0: the whole batch")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--lr", train.learning_rate, "phatgoose: learning rate of AdamW")
      ->type_name("RATE")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_overwrite_option(command, flags->overwrite);
  add_base_flags(command, flags->model);
  command.get_option("--base")->required(false)->description(
      "The base; without it the path the library was created from");
  add_prompt_flags(command, train.prompt);
  add_common_options(command, flags->common);
  command.callback([&job, flags] {
    job.run = [flags] {
      unescape_separator(flags->train.prompt);
      return fit(*flags);
    };
  });
}

}  // namespace skein
