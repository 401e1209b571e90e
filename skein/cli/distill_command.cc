// skein distill: a routed pool, or a mix of it fitted to a few examples, as one adapter.
#include <CLI/CLI.hpp>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/cli/model_flags.h"
#include "skein/cli/prompt_flags.h"
#include "skein/cli/result_output.h"
#include "skein/cli/text_table.h"
#include "skein/cli/verbs.h"
#include "skein/experts/combine.h"
#include "skein/infer/distill.h"
#include "skein/infer/lorahub.h"
#include "skein/io/output_folder.h"
#include "skein/train/student.h"

namespace skein {
namespace {

struct DistillFlags {
  ModelFlags model;
  CommonOptions common;
  std::string method = "routing", out;
  std::vector<std::string> data;
  bool overwrite = false;
  std::int64_t limit = 100, rank = 0;
  double smallest = 0.001;
  LoraHubOptions lorahub{.generations = 10};
  TrainOptions training{.steps = 100, .batch = 8, .learning_rate = 1e-3};
  PromptOptions prompt;
};

constexpr std::int64_t kBatchTokens = 2048;

std::vector<EncodedExample> read_and_encode(const DistillFlags& flags, const LoadedModel& model) {
  std::vector<EncodedExample> encoded;
  for (const std::string& path : flags.data) {
    std::vector<Example> examples = or_throw(read_examples(real_env(), {path}));
    examples.resize(std::min<std::size_t>(examples.size(), static_cast<std::size_t>(flags.limit)));
    for (const Example& example : examples) {
      encoded.push_back(encode_example(example, *model.tokenizer, model.base.config, flags.prompt));
      encoded.back().hint = model.hint_of(example);
    }
  }
  return encoded;
}

// weights (slots, E) as rows, those below the smallest left out.
std::vector<std::vector<double>> kept_weights(const at::Tensor& weights, double smallest) {
  std::vector<std::vector<double>> rows;
  for (std::int64_t s = 0; s < weights.size(0); ++s) {
    const double* row = weights.const_data_ptr<double>() + s * weights.size(1);
    rows.emplace_back(row, row + weights.size(1));
    for (double& weight : rows.back()) weight = weight < smallest ? 0 : weight;
  }
  return rows;
}

// Mean over the slots where anything was routed, by expert.
std::vector<double> mean_weights(const at::Tensor& weights) {
  const at::Tensor used = weights.sum(1) > 0;
  const at::Tensor mean = weights.sum(0) / used.sum().clamp_min(1);
  const at::Tensor flat = mean.contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

struct Distilled {
  LoraAdapter adapter;
  std::vector<double> weights;      // by expert
  double cut = 0;                   // mean share of a module's update that the rank leaves out
  std::vector<double> divergences;  // outputs: of each step
};

Distilled from_routing(const DistillFlags& flags, const LoadedModel& model, const PoolMembers& pool,
                       const std::vector<EncodedExample>& examples) {
  std::vector<const LoraAdapter*> pointers;
  for (const LoraAdapter& adapter : pool.adapters) pointers.push_back(&adapter);
  const at::Tensor weights = mean_routing_weights(model, examples, kBatchTokens);
  Distilled result{concatenated(pointers, kept_weights(weights, flags.smallest)), mean_weights(weights), 0, {}};
  if (result.adapter.modules.empty()) throw Failure({"nothing was routed to any expert; are the gates of this base?"});
  if (flags.rank > 0) {
    std::vector<double> lost;
    result.adapter = of_rank(result.adapter, model.backbone->slots(), flags.rank, &lost);
    for (const double share : lost) result.cut += share / static_cast<double>(lost.size());
  }
  return result;
}

// The student starts where `routing` ends and is trained on what the pool says of every target token.
Distilled from_outputs(DistillFlags& flags, const LoadedModel& model, const PoolMembers& pool,
                       const std::vector<EncodedExample>& examples) {
  Distilled result = from_routing(flags, model, pool, examples);
  flags.training.seed = flags.common.seed;
  StudentReport report;
  result.adapter = train_student(*model.backbone, *model.filler, result.adapter, examples, flags.training, &report);
  result.divergences = std::move(report.divergences);
  return result;
}

Distilled from_lorahub(DistillFlags& flags, const LoadedModel& model, const PoolMembers& pool,
                       const std::vector<EncodedExample>& examples) {
  flags.lorahub.seed = flags.common.seed;
  LoraHub found = fit_lorahub(model, pool.adapters, examples, flags.lorahub);
  return {std::move(found.adapter), std::move(found.weights), 0, {}};
}

int distill(DistillFlags& flags) {
  ModelOptions options = model_options(flags.model, flags.common);
  if (options.library.empty()) throw Failure({"distill needs --library", ErrorKind::kUsage});
  Env& env = real_env();
  const auto folder = or_throw(OutputFolder::begin(env, flags.out, flags.overwrite));
  LoadedModel model = load_model(env, options);
  const std::vector<EncodedExample> examples = read_and_encode(flags, model);
  const PoolMembers pool = read_pool(env, options.library, options.router.general, model.backbone->slots());
  Distilled result = flags.method == "routing"   ? from_routing(flags, model, pool, examples)
                     : flags.method == "outputs" ? from_outputs(flags, model, pool, examples)
                                                 : from_lorahub(flags, model, pool, examples);
  result.adapter.config.base_model_name_or_path = flags.model.base;
  or_throw(write_lora_adapter(env, folder->path(), result.adapter, model.backbone->slots()));

  // What stands in the slots once the file is read again, beside the pool and the plain base.
  const std::shared_ptr<const SlotFiller> routed = model.filler;
  ModelOptions alone = options;
  alone.library.clear();
  alone.adapter = folder->path();
  change_experts(env, model, alone);
  const OutputDistance to_pool = output_distance(*model.backbone, routed.get(), model.filler.get(), examples);
  const OutputDistance of_base = output_distance(*model.backbone, routed.get(), nullptr, examples);
  Json weights = Json::object();
  for (std::size_t e = 0; e < pool.names.size(); ++e) weights[pool.names[e]] = result.weights[e];
  Json report = {{"out", flags.out},
                 {"method", flags.method},
                 {"router", router_words(options.router)},
                 {"library", options.library},
                 {"examples", examples.size()},
                 {"target_tokens", to_pool.num_tokens},
                 {"rank", result.adapter.config.rank},
                 {"left_out_by_rank", result.cut},
                 {"weights", weights},
                 {"loss", {{"base", of_base.loss}, {"pool", to_pool.reference_loss}, {"distilled", to_pool.loss}}},
                 {"divergence_from_pool", {{"base", of_base.divergence}, {"distilled", to_pool.divergence}}}};
  if (!result.divergences.empty()) report["training_divergences"] = result.divergences;
  or_throw(write_card(env, folder->path(),
                      {{"base_fingerprint", or_throw(base_fingerprint(env, model.base))}, {"distilled", report}}));
  or_throw(folder->commit());

  if (flags.common.json) {
    print_json(report);
  } else {
    using enum TextTable::Align;
    TextTable experts({{"expert", kLeft}, {"weight"}});
    for (std::size_t e = 0; e < pool.names.size(); ++e)
      experts.add_row({printable(pool.names[e]), fixed(result.weights[e], 3)});
    TextTable losses({{"model", kLeft}, {"loss"}, {"KL from the pool"}});
    losses.add_row({"base", fixed(of_base.loss, 4), fixed(of_base.divergence, 4)});
    losses.add_row({"pool", fixed(to_pool.reference_loss, 4), fixed(0, 4)});
    losses.add_row({"distilled", fixed(to_pool.loss, 4), fixed(to_pool.divergence, 4)});
    print_text(concat(experts.render(is_styled(stdout)), "\n", losses.render(is_styled(stdout)), to_pool.num_tokens,
                      " target tokens of ", examples.size(), " examples; nats per token\n"));
  }
  log_info(concat("wrote ", flags.out, ", rank ", result.adapter.config.rank, "; next: --adapter ", flags.out));
  return 0;
}

}  // namespace

void add_distill_verb(CLI::App& program, Job& job) {
  auto flags = std::make_shared<DistillFlags>();
  CLI::App& verb = add_command(
      program, "distill", "Fold a routed pool into one adapter, and say how far it is from the pool",
      "skein distill --base models/smollm2.gguf --library pool --data mixed.jsonl --rank 32 --out experts/distilled\n"
      "skein distill --base models/smollm2.gguf --library pool --method outputs --rank 32 --data mixed.jsonl "
      "--out experts/taught\n"
      "skein distill --base models/smollm2.gguf --library pool --method lorahub --data five.jsonl --out experts/mine");
  verb.add_option(
          "--method", flags->method,
          "routing: the router's mean weights per module stand as merge weights; outputs: from there the adapter is "
          "trained on what the pool says of every target token; lorahub: one weight per expert, sought without "
          "gradients on a few examples")
      ->type_name("METHOD")
      ->check(CLI::IsMember({"routing", "outputs", "lorahub"}))
      ->capture_default_str();
  verb.add_option("--data", flags->data, "DATA to route, or to fit to")->type_name("DATA")->required();
  verb.add_option("--limit", flags->limit, "Examples per file")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--out", flags->out, "Folder to write the adapter to")->type_name("DIR")->required();
  verb.add_option("--rank", flags->rank,
                  "routing, outputs: rank of the adapter; 0: all ranks of the pool side by side, exactly")
      ->type_name("R")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--smallest", flags->smallest,
                  "routing, outputs: an expert with a smaller weight in a module is left out there")
      ->type_name("W")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb.add_option("--steps", flags->training.steps, "outputs: optimiser steps")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--batch", flags->training.batch, "outputs: examples per step")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--lr", flags->training.learning_rate, "outputs: learning rate of AdamW")
      ->type_name("RATE")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--generations", flags->lorahub.generations, "lorahub: generations of CMA-ES")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--penalty", flags->lorahub.penalty, "lorahub: of the mean size of the weights")
      ->type_name("P")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_overwrite_option(verb, flags->overwrite);
  add_model_flags(verb, flags->model);
  flags->model.needs_gradients = true;
  add_prompt_flags(verb, flags->prompt);
  add_common_options(verb, flags->common);
  verb.callback([&job, flags] {
    job.run = [flags] {
      unescape_separator(flags->prompt);
      return distill(*flags);
    };
  });
}

}  // namespace skein
