// Every setting of training, with the paper's value where there is one (PHATGOOSE: arXiv 2402.05859, appendix; values
// from the released code).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "skein/base/result.h"
#include "skein/experts/trainable_lora.h"
#include "skein/infer/prompt.h"
#include "skein/io/json.h"

namespace skein {

enum class LossMean {
  kToken,       // over all target tokens of the step
  kMicrobatch,  // over the tokens of a micro-batch, then over micro-batches (PHATGOOSE's code)
  kSequence,    // over the tokens of each sequence, then over sequences (MoV's code)
};

enum class OptimiserKind { kAdamW, kAdafactor };

enum class Schedule { kConstant, kLinear, kCosine };  // after warm-up; linear and cosine fall to 0 at the last step

struct TrainOptions {
  std::int64_t steps = 200;      // phatgoose: 1000 for experts, 100 for gates
  std::int64_t batch = 16;       // sequences per step; phatgoose: 1024
  std::int64_t micro_batch = 0;  // sequences per forward pass; 0: the whole batch
  double learning_rate = 5e-3;   // phatgoose
  OptimiserKind optimiser = OptimiserKind::kAdamW;
  // AdamW.
  double beta1 = 0.9, beta2 = 0.999, adam_eps = 1e-8, weight_decay = 0;
  // Adafactor: second moments of matrices as rows and columns; the exponent of their decay; the largest RMS of an
  // update; rates that scale with the size of a tensor's numbers; rates of its own, 1 / sqrt(step) at most 0.01.
  bool factored = true;
  double adafactor_decay = 0.8, adafactor_threshold = 1.0;
  bool scale_parameter = false, relative_step = false;
  double warmup_ratio = 0.06;  // share of the steps; multiplier step/warm-up, the first update has lr 0
  Schedule schedule = Schedule::kConstant;
  double clip_norm = 1.0;  // global gradient norm; 0: none
  LossMean loss_mean = LossMean::kToken;
  std::uint64_t seed = 0;          // of the order of the data (lora.seed: of the first weights)
  bool checkpoint_blocks = false;  // recompute activations in the backward pass
  // Which task the next example is of: in their order over all data, or by rates min(size, cap)^(1/temperature).
  bool by_task_rates = false;
  std::int64_t task_cap = 0;    // examples; 0: none
  double task_temperature = 1;  // above 1: small tasks more often
  // Mixtures: weights of the routers' additional losses (experts/mixture_router.h).
  double balance_weight = 0, z_loss_weight = 0;
  // Never lost.
  std::int64_t save_every = 100;  // steps between training states; 0: only at the end and on Ctrl-C
  double save_minutes = 0;        // and after so many minutes since the last; 0: by steps alone
  int keep = 2;                   // states kept: the newest and those before it
  bool resume = false;
  // Validation: experts keep the best checkpoint (lowest loss; ties: the newer), gates their last step.
  std::vector<std::string> valid;  // DATA; empty: none
  std::int64_t valid_every = 100;  // steps
  std::int64_t valid_limit = 200;  // examples; 0: all
  PromptOptions prompt;
  bool allow_other_base = false;  // gates: although the expert's card names another base
  std::string program_version;    // written into the card; empty: left out
  LoraInit lora;                  // experts only
};

// --paper phatgoose: every rule of methods section 3 (experts) and 4 (gates). The paper's micro-batches have 2 to 32
// sequences by data set; 16 here, and micro_batch may be changed.
TrainOptions phatgoose_expert_options();
TrainOptions phatgoose_gate_options();
// --paper mov: the rules of arXiv 2309.05444 and its code (T5X's Adafactor scales rates by the parameters' size).
TrainOptions mov_options();

std::string_view loss_mean_name(LossMean mean);  // "token"
std::string_view schedule_name(Schedule schedule);
std::string_view optimiser_name(OptimiserKind optimiser);
Result<LossMean> parse_loss_mean(std::string_view name);  // kUsage on another name
Result<Schedule> parse_schedule(std::string_view name);
Result<OptimiserKind> parse_optimiser(std::string_view name);

// Settings out of range as one sentence (kUsage).
Status check_train_options(const TrainOptions& options);
// All that decides the weights: for the card, and so that --resume can name what was changed. Data and files aside.
Json train_options_to_json(const TrainOptions& options, bool with_lora);

}  // namespace skein
