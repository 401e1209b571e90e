// Training speed of a LoRA expert of rank 16 on all linears, as JSON on stdout. tools/bench/train_vs_peft.py makes the
// data and sets it beside PEFT.
//
//   train_bench --base models/smollm2.gguf --data IDS.jsonl [--dtype f32|bf16] [--batch 8] [--steps 5] [--warm-up 1]
//               [--threads 2] [--recompute 0|1] [--gate 0|1]
// A line of IDS.jsonl: {"input": [ids], "target": [ids]}, read in order. --gate: PHATGOOSE's gate of a random expert
// instead.
#include <iostream>
#include <sstream>

#include "benchmarks/timing.h"
#include "skein/experts/trainable_lora.h"
#include "skein/io/json.h"
#include "skein/spec/base_model.h"
#include "skein/train/train_loop.h"
#include "skein/train/training_state.h"

namespace skein {
namespace {

TrainData read_ids(const std::string& path) {
  TrainData data;
  or_throw(for_each_json_line(real_env(), path, [&](Json&& line, std::int64_t number) -> Status {
    EncodedExample example;
    example.input = line["input"].get<std::vector<TokenId>>();
    example.target = line["target"].get<std::vector<TokenId>>();
    data.examples.push_back(std::move(example));
    data.ids.push_back(std::to_string(number));
    return {};
  }));
  return data;
}

// Steps after the first `warm_up`, from the run's own log.
Json speed_of(Env& env, const TrainOptions& options, std::int64_t warm_up) {
  std::istringstream log(or_throw(read_text_file(env, log_file("run"))));
  Json losses = Json::array();
  double begin = 0, end = 0, tokens = 0, target_tokens = 0;
  for (std::string text; std::getline(log, text);) {
    const Json line = Json::parse(text);
    losses.push_back(line["loss"]);
    end = line["seconds"].get<double>();
    if (line["step"].get<std::int64_t>() <= warm_up) {
      begin = end;
      continue;
    }
    tokens += line["tokens"].get<double>();
    target_tokens += line["target_tokens"].get<double>();
  }
  const double seconds = end - begin;
  return Json{{"examples_per_s", static_cast<double>((options.steps - warm_up) * options.batch) / seconds},
              {"tokens_per_s", tokens / seconds},
              {"target_tokens_per_s", target_tokens / seconds},
              {"losses", losses}};
}

void run(int argc, char** argv) {
  const ComputeOptions compute = or_throw(compute_options("cpu", argument(argc, argv, "dtype", "")));
  set_compute_threads(static_cast<int>(integer_argument(argc, argv, "threads", 0)));
  const BaseModel base = or_throw(open_base_model(real_env(), argument(argc, argv, "base", "models/smollm2.gguf")));
  const auto backbone = load_backbone(base, compute);
  backbone->set_checkpoint_blocks(integer_argument(argc, argv, "recompute", 0) != 0);
  const std::int64_t loaded_bytes = peak_memory_bytes();
  const TrainData data = read_ids(argument(argc, argv, "data", "")), none;
  const std::int64_t warm_up = integer_argument(argc, argv, "warm-up", 1);
  TrainOptions options;
  options.batch = integer_argument(argc, argv, "batch", 8);
  options.steps = warm_up + integer_argument(argc, argv, "steps", 5);
  options.warmup_ratio = 0;  // the first update counts, as the peer's does

  const TrainableLora lora(backbone->slots(), options.lora, compute.device);
  Trainee trainee{&lora, lora.parameters(), lora.parameter_names()};
  std::unique_ptr<GatedLora> gated;
  if (integer_argument(argc, argv, "gate", 0) != 0) {
    gated = std::make_unique<GatedLora>(lora.to_adapter("", false), backbone->slots(), compute);
    trainee = {gated.get(), gated->parameters(), gated->parameter_names()};
  }
  const auto env = make_memory_env();
  TrainRun training;
  training.what = "training";
  training.state_folder = "run";
  run_training(*env, *backbone, trainee, data, none, training, options);
  Json result = speed_of(*env, options, warm_up);
  result["loaded_bytes"] = loaded_bytes;
  result["peak_bytes"] = peak_memory_bytes();
  std::cout << result.dump() << "\n";
}

}  // namespace
}  // namespace skein

int main(int argc, char** argv) {
  try {
    skein::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "train_bench: " << error.what() << "\n";
    return 1;
  }
}
