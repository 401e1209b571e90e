#include "skein/train/options.h"

#include <cmath>
#include <utility>

#include "skein/base/concat.h"
#include "skein/base/word_table.h"

namespace skein {
namespace {

constexpr WordTable<LossMean, 3> kLossMeans{
    {{LossMean::kToken, "token"}, {LossMean::kMicrobatch, "microbatch"}, {LossMean::kSequence, "sequence"}}};
constexpr WordTable<Schedule, 3> kSchedules{
    {{Schedule::kConstant, "constant"}, {Schedule::kLinear, "linear"}, {Schedule::kCosine, "cosine"}}};

constexpr WordTable<OptimiserKind, 2> kOptimisers{
    {{OptimiserKind::kAdamW, "adamw"}, {OptimiserKind::kAdafactor, "adafactor"}}};

}  // namespace

TrainOptions phatgoose_expert_options() {
  TrainOptions options;
  options.steps = 1000;
  options.batch = 1024;
  options.micro_batch = 16;
  options.loss_mean = LossMean::kMicrobatch;
  return options;  // the rest are the defaults: lr 5e-3, warm-up 6 %, clip 1, rank 16, alpha 1, A ~ N(0, 0.01^2)
}

TrainOptions phatgoose_gate_options() {
  TrainOptions options = phatgoose_expert_options();
  options.steps = 100;
  return options;
}

TrainOptions mov_options() {
  TrainOptions options;
  options.steps = 500000;
  options.batch = 32;
  options.learning_rate = 3e-4;
  options.optimiser = OptimiserKind::kAdafactor;
  options.scale_parameter = true;
  options.warmup_ratio = 0;
  options.clip_norm = 0;
  options.loss_mean = LossMean::kSequence;
  options.prompt.max_input = 1024;
  options.prompt.max_target = 256;
  options.by_task_rates = true;
  options.task_cap = 500000;
  options.lora.rank = 4;
  options.lora.alpha = 16;
  options.lora.a_std = 0.02;
  return options;
}

std::string_view optimiser_name(OptimiserKind optimiser) { return name_in(kOptimisers, optimiser); }
Result<OptimiserKind> parse_optimiser(std::string_view name) { return value_in(kOptimisers, name, "optimiser"); }
std::string_view loss_mean_name(LossMean mean) { return name_in(kLossMeans, mean); }
std::string_view schedule_name(Schedule schedule) { return name_in(kSchedules, schedule); }
Result<LossMean> parse_loss_mean(std::string_view name) { return value_in(kLossMeans, name, "loss mean"); }
Result<Schedule> parse_schedule(std::string_view name) { return value_in(kSchedules, name, "schedule"); }

Status check_train_options(const TrainOptions& options) {
  const auto refuse = [](std::string_view option, auto value, std::string_view expected) {
    return Error{concat(option, " is ", value, "; expected ", expected), ErrorKind::kUsage};
  };
  if (options.steps < 1) return refuse("the number of steps", options.steps, "at least 1");
  if (options.batch < 1) return refuse("the batch", options.batch, "at least 1 sequence");
  if (options.micro_batch < 0) return refuse("the micro-batch", options.micro_batch, "0 (the whole batch) or more");
  // !(a <= b) instead of a > b: a NaN is refused too.
  const auto in = [](double value, double low, double high) { return value >= low && value <= high; };
  if (!in(options.learning_rate, 0, 1e6))
    return refuse("the learning rate", options.learning_rate, "a number of at least 0");
  if (!(options.beta1 >= 0 && options.beta1 < 1)) return refuse("beta1", options.beta1, "a number in [0, 1)");
  if (!(options.beta2 >= 0 && options.beta2 < 1)) return refuse("beta2", options.beta2, "a number in [0, 1)");
  if (!in(options.adam_eps, 0, 1)) return refuse("Adam's eps", options.adam_eps, "a number in [0, 1]");
  if (!in(options.weight_decay, 0, 1e6))
    return refuse("the weight decay", options.weight_decay, "a number of at least 0");
  if (!in(options.adafactor_decay, 0, 1))
    return refuse("Adafactor's decay", options.adafactor_decay, "a number in [0, 1]");
  if (!in(options.adafactor_threshold, 1e-6, 1e30))
    return refuse("Adafactor's clipping threshold", options.adafactor_threshold, "a number above 0");
  if (options.task_cap < 0) return refuse("the cap on a task's size", options.task_cap, "0 (none) or more");
  if (!in(options.task_temperature, 1e-3, 1e6))
    return refuse("the temperature of task rates", options.task_temperature, "a number above 0");
  if (!in(options.balance_weight, 0, 1e6))
    return refuse("the weight of load balancing", options.balance_weight, "0 (none) or more");
  if (!in(options.z_loss_weight, 0, 1e6)) return refuse("the weight of the z-loss", options.z_loss_weight, "0 or more");
  if (options.keep < 1 || options.keep > 1000) return refuse("the number of states kept", options.keep, "1 to 1000");
  if (!in(options.save_minutes, 0, 1e6))
    return refuse("the minutes between saved states", options.save_minutes, "0 (never) or more");
  if (!in(options.warmup_ratio, 0, 1)) return refuse("the warm-up ratio", options.warmup_ratio, "a share in [0, 1]");
  if (!in(options.clip_norm, 0, 1e30)) return refuse("the clipping norm", options.clip_norm, "0 (none) or more");
  if (options.save_every < 0) return refuse("the steps between saved states", options.save_every, "0 (never) or more");
  if (options.valid_every < 1) return refuse("the steps between validations", options.valid_every, "at least 1");
  if (options.valid_limit < 0)
    return refuse("the limit of validation examples", options.valid_limit, "0 (all) or more");
  return {};
}

Json train_options_to_json(const TrainOptions& options, bool with_lora) {
  Json json;
  json["steps"] = options.steps;
  json["batch"] = options.batch;
  json["micro_batch"] = options.micro_batch;
  json["learning_rate"] = options.learning_rate;
  json["optimiser"] = optimiser_name(options.optimiser);
  if (options.optimiser == OptimiserKind::kAdamW) {
    json["beta1"] = options.beta1;
    json["beta2"] = options.beta2;
    json["adam_eps"] = options.adam_eps;
  } else {
    json["factored"] = options.factored;
    json["adafactor_decay"] = options.adafactor_decay;
    json["adafactor_threshold"] = options.adafactor_threshold;
    json["scale_parameter"] = options.scale_parameter;
    json["relative_step"] = options.relative_step;
  }
  if (options.by_task_rates) {
    json["task_cap"] = options.task_cap;
    json["task_temperature"] = options.task_temperature;
  }
  if (options.balance_weight > 0) json["balance_weight"] = options.balance_weight;
  if (options.z_loss_weight > 0) json["z_loss_weight"] = options.z_loss_weight;
  json["weight_decay"] = options.weight_decay;
  json["warmup_ratio"] = options.warmup_ratio;
  json["schedule"] = schedule_name(options.schedule);
  json["clip_norm"] = options.clip_norm;
  json["loss_mean"] = loss_mean_name(options.loss_mean);
  json["seed"] = options.seed;
  json["checkpoint_blocks"] = options.checkpoint_blocks;
  json["valid_every"] = options.valid_every;
  json["valid_limit"] = options.valid_limit;
  json["separator"] = options.prompt.separator;
  json["chat"] = options.prompt.chat;
  json["max_input"] = options.prompt.max_input;
  json["max_target"] = options.prompt.max_target;
  if (with_lora) {
    json["rank"] = options.lora.rank;
    json["alpha"] = options.lora.alpha;
    json["a_std"] = options.lora.a_std;
    json["target_kinds"] = options.lora.target_kinds;
    json["lora_seed"] = options.lora.seed;
  }
  return json;
}

}  // namespace skein
