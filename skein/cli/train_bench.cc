#include "skein/cli/bench_verbs.h"

#include <CLI/CLI.hpp>

#include <fstream>
#include <functional>
#include <sstream>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/base/thread_pool.h"
#include "skein/cli/bench_bars.h"
#include "skein/cli/child_run.h"
#include "skein/cli/common_options.h"
#include "skein/cli/result_output.h"
#include "skein/cli/text_table.h"
#include "skein/experts/trainable_lora.h"
#include "skein/infer/loaded_model.h"
#include "skein/io/temporary_folder.h"
#include "skein/spec/example.h"
#include "skein/train/data_order.h"
#include "skein/train/mixture_trainer.h"
#include "skein/train/train_data.h"
#include "skein/train/train_loop.h"
#include "skein/train/training_state.h"

namespace skein {
namespace {

struct TrainBenchFlags {
  std::string base = "models/smollm2.gguf";
  std::vector<std::string> data;
  std::string dtype;
  std::int64_t batch = 8, steps = 5, warm_up = 1;
  int rounds = 1;
  int base_bits = 0;
  std::string peer_python, peer_script = "tools/bench/peft_train.py";
  std::string one, ids;  // a child's
  CommonOptions common;
};

// ---- one measurement, in a process of its own ----

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

std::int64_t own_peak_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    std::int64_t kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib * 1024;
  }
  return 0;
}

// Speed of the steps after the first `warm_up`, from the run's own log.
Json speed_of(Env& env, const TrainOptions& options, std::int64_t warm_up) {
  std::istringstream log(or_throw(read_text_file(env, log_file("run"))));
  Json losses = Json::array();
  double begin = 0, end = 0, tokens = 0;
  for (std::string text; std::getline(log, text);) {
    const Json line = Json::parse(text);
    losses.push_back(line["loss"]);
    end = line["seconds"].get<double>();
    if (line["step"].get<std::int64_t>() <= warm_up) {
      begin = end;
    } else {
      tokens += line["tokens"].get<double>();
    }
  }
  const double seconds = end - begin;
  const auto steps = static_cast<double>(options.steps - warm_up);
  return {{"s_per_step", seconds / steps},
          {"examples_per_s", steps * static_cast<double>(options.batch) / seconds},
          {"tokens_per_s", tokens / seconds},
          {"losses", losses},
          {"peak_bytes", own_peak_bytes()}};
}

// kind: "lora-R", "gate-R" or "molora-R", R the rank, of ten experts for molora.
int measure_one(const TrainBenchFlags& flags) {
  const std::size_t dash = flags.one.find('-');
  const std::string kind = flags.one.substr(0, dash);
  const std::int64_t rank = dash == flags.one.npos ? 16 : std::stoll(flags.one.substr(dash + 1));
  ComputeOptions compute = or_throw(compute_options("cpu", flags.dtype));
  compute.base_bits = flags.base_bits;
  set_compute_threads(flags.common.num_threads);
  const BaseModel base = or_throw(open_base_model(real_env(), flags.base));
  const auto backbone = load_backbone(base, compute);
  const TrainData data = read_ids(flags.ids), none;
  TrainOptions options;
  options.batch = flags.batch;
  options.steps = flags.warm_up + flags.steps;
  options.warmup_ratio = 0;  // the first update counts, as the peer's does
  options.lora.rank = rank;

  Trainee trainee;
  std::unique_ptr<TrainableLora> lora;
  std::unique_ptr<GatedLora> gated;
  std::unique_ptr<MixtureSlots> mixture;
  if (kind == "molora") {
    const MixtureConfig config{
        .kind = MixtureKind::kMolora, .num_experts = 10, .rank = rank, .router_input = RouterInput::kHidden};
    mixture = std::make_unique<MixtureSlots>(new_mixture(config, base.config, {}), base.config, compute,
                                             MixtureSlots::Trains::kAll);
    trainee = mixture_trainee(*mixture, options);
  } else {
    lora = std::make_unique<TrainableLora>(backbone->slots(), options.lora, compute.device);
    trainee = {lora.get(), lora->parameters(), lora->parameter_names()};
  }
  if (kind == "gate") {
    gated = std::make_unique<GatedLora>(lora->to_adapter("", false), backbone->slots(), compute);
    lora.reset();
    trainee = {gated.get(), gated->parameters(), gated->parameter_names()};
  }
  const auto env = make_memory_env();
  TrainRun run;
  run.what = flags.one;
  run.state_folder = "run";
  run_training(*env, *backbone, trainee, data, none, run, options);
  print_json_line(speed_of(*env, options, flags.warm_up));
  return 0;
}

// ---- all of them ----

// Token ids for as many examples as are read: DATA's own, or made ones of mixed length.
void write_ids(const TrainBenchFlags& flags, const std::string& path) {
  const std::int64_t count = flags.batch * (flags.warm_up + flags.steps);
  std::string text;
  const auto add = [&](const std::vector<TokenId>& input, const std::vector<TokenId>& target) {
    text += json_line({{"input", input}, {"target", target}}) + "\n";
  };
  if (!flags.data.empty()) {
    const LoadedModel model = load_model(real_env(), {.base = flags.base});
    const auto data = or_throw(encode_train_data(or_throw(read_examples(real_env(), flags.data)), model, {}));
    DataOrder order(static_cast<std::int64_t>(data.examples.size()), flags.common.seed);
    for (std::int64_t i = 0; i < count; ++i) {
      const EncodedExample& example = data.examples[static_cast<std::size_t>(order.at(i))];
      add(example.input, example.target);
    }
  } else {
    // Inputs of 20 to 200 tokens, targets of 1 to 8.
    for (std::int64_t i = 0; i < count; ++i) {
      std::uint64_t counter = 0;
      const auto draw = [&](std::uint64_t low, std::uint64_t high) {
        return low + counter_random(flags.common.seed, static_cast<std::uint64_t>(i), counter++) % (high - low + 1);
      };
      std::vector<TokenId> input(draw(20, 200)), target(draw(1, 8));
      for (auto* tokens : {&input, &target}) {
        for (TokenId& token : *tokens) token = static_cast<TokenId>(draw(1000, 20999));
      }
      add(input, target);
    }
  }
  or_throw(write_text_atomically(real_env(), path, text));
}

struct Row {
  std::string what;
  Json result;
};

Json last_line(const std::string& out) {
  const std::size_t end = out.find_last_not_of('\n');
  const std::size_t begin = end == out.npos ? 0 : out.rfind('\n', end) + 1;
  return or_throw(parse_json(out.substr(begin), "the measurement's output"));
}

// Of several rounds the quickest: what is measured is the program, not what else the machine does.
Json quickest(int rounds, const std::function<Json()>& measure) {
  Json best;
  for (int round = 0; round < rounds; ++round) {
    Json result = measure();
    if (best.is_null() || result["s_per_step"] < best["s_per_step"]) best = std::move(result);
  }
  return best;
}

std::vector<Row> measure_all(const TrainBenchFlags& flags, const std::string& ids) {
  const std::vector<std::string> sizes = {"--batch",   std::to_string(flags.batch),
                                          "--steps",   std::to_string(flags.steps),
                                          "--warm-up", std::to_string(flags.warm_up),
                                          "--threads", std::to_string(num_threads()),
                                          "--base",    flags.base,
                                          "--dtype",   flags.dtype.empty() ? "bf16" : flags.dtype};
  const auto with_sizes = [&](std::vector<std::string> words) {
    words.insert(words.end(), sizes.begin(), sizes.end());
    return words;
  };
  std::vector<Row> rows;
  for (const char* what : {"lora-16", "gate-16", "molora-16", "lora-4", "molora-4"}) {
    log_info(concat("measuring ", what));
    std::vector<std::string> words = {own_program(), "bench", "train",      "--one", what,
                                      "--ids",       ids,     "--progress", "none"};
    if (flags.base_bits != 0) words.insert(words.end(), {"--base-bits", std::to_string(flags.base_bits)});
    rows.push_back(
        {what, quickest(flags.rounds, [&] { return last_line(or_throw(run_child(with_sizes(words))).out); })});
  }
  if (flags.peer_python.empty()) return rows;
  log_info("measuring PEFT");
  rows.push_back(
      {"PEFT lora-16", quickest(flags.rounds, [&] {
         return last_line(or_throw(run_child(with_sizes({flags.peer_python, flags.peer_script, "--ids", ids}))).out);
       })});
  return rows;
}

BenchBars bars_of(const std::vector<Row>& rows) {
  const auto of = [&](std::string_view what, const char* key) {
    for (const Row& row : rows) {
      if (row.what == what) return row.result[key].get<double>();
    }
    return 0.0;
  };
  BenchBars bars;
  bars.at_most("step, MoLoRA-10 / LoRA, rank 4", of("molora-4", "s_per_step") / of("lora-4", "s_per_step"), 1.3);
  bars.at_most("step, MoLoRA-10 / LoRA, rank 16", of("molora-16", "s_per_step") / of("lora-16", "s_per_step"), 1.7);
  bars.at_least("tokens/s, gate / expert", of("gate-16", "tokens_per_s") / of("lora-16", "tokens_per_s"), 1);
  bars.at_most("peak memory, gate / expert", of("gate-16", "peak_bytes") / of("lora-16", "peak_bytes"), 1);
  if (rows.back().what.starts_with("PEFT")) {
    bars.at_least("useful tokens/s, LoRA / PEFT", of("lora-16", "tokens_per_s") / of("PEFT lora-16", "tokens_per_s"),
                  2);
    bars.at_most("peak memory, LoRA / PEFT", of("lora-16", "peak_bytes") / of("PEFT lora-16", "peak_bytes"), 0.6);
  }
  return bars;
}

void print_tables(const TrainBenchFlags& flags, const std::vector<Row>& rows, const BenchBars& bars) {
  using enum TextTable::Align;
  print_text(concat("batch ", flags.batch, ", ", flags.steps, " steps after ", flags.warm_up, " of warm-up, ",
                    num_threads(), " threads; tokens: inputs and targets without padding; MB: peak resident memory\n"));
  TextTable table(
      {{"what", kLeft}, {"s/step"}, {"examples/s"}, {"tokens/s"}, {"peak MB"}, {"first loss"}, {"last loss"}});
  for (const auto& [what, result] : rows) {
    const auto number = [&](const char* key, int digits) { return fixed(result[key].get<double>(), digits); };
    table.add_row({what, number("s_per_step", 3), number("examples_per_s", 2), number("tokens_per_s", 0),
                   fixed(result["peak_bytes"].get<double>() / 1e6, 0), fixed(result["losses"].front().get<double>(), 3),
                   fixed(result["losses"].back().get<double>(), 3)});
  }
  print_text(table.render(is_styled(stdout)) + "\n");
  print_text(bars.render(is_styled(stdout)));
}

int run(const TrainBenchFlags& flags) {
  apply_common_options(flags.common);
  if (!flags.one.empty()) return measure_one(flags);
  const TemporaryFolder folder("skein-bench-train");
  write_ids(flags, folder / "ids.jsonl");
  const std::vector<Row> rows = measure_all(flags, folder / "ids.jsonl");
  const BenchBars bars = bars_of(rows);
  if (!flags.common.json) {
    print_tables(flags, rows, bars);
    return 0;
  }
  Json json = {{"threads", num_threads()}, {"rows", Json::array()}, {"ratios", bars.to_json()}};
  for (const Row& row : rows) {
    json["rows"].push_back(row.result);
    json["rows"].back()["what"] = row.what;
  }
  print_json(json);
  return 0;
}

}  // namespace

void add_train_bench(CLI::App& bench, Job& job) {
  auto flags = std::make_shared<TrainBenchFlags>();
  CLI::App& verb =
      add_command(bench, "train", "Training a LoRA beside PEFT; a MoLoRA's and a gate's cost beside a LoRA's",
                  "skein bench train --peer-python .peers/transformers/bin/python\n"
                  "skein bench train --data news.jsonl --dtype f32 --steps 3");
  verb.add_option("--base", flags->base, "The base model; for the peer one .gguf file")
      ->type_name("BASE")
      ->capture_default_str();
  verb.add_option("--data", flags->data,
                  "DATA whose lengths count; without it made ones: inputs of 20 to 200 tokens, targets of 1 to 8")
      ->type_name("DATA");
  verb.add_option("--dtype", flags->dtype, "f32 or bf16")->type_name("TYPE")->default_str("bf16");
  const auto count = [&](const char* name, auto& value, const char* help) {
    verb.add_option(name, value, help)->type_name("N")->check(CLI::PositiveNumber)->capture_default_str();
  };
  count("--batch", flags->batch, "Sequences per step");
  count("--steps", flags->steps, "Steps that are timed");
  count("--warm-up", flags->warm_up, "Steps before them");
  count("--rounds", flags->rounds, "Times each is run; the quickest counts");
  verb.add_option("--base-bits", flags->base_bits, "As in skein train")
      ->type_name("BITS")
      ->check(CLI::IsMember(std::vector<int>{8, 4}));
  verb.add_option("--peer-python", flags->peer_python,
                  "Interpreter with torch, transformers and PEFT to measure beside")
      ->type_name("PY");
  verb.add_option("--peer-script", flags->peer_script, "What it runs")->type_name("FILE")->capture_default_str();
  verb.add_option("--one", flags->one)->group("");
  verb.add_option("--ids", flags->ids)->group("");
  add_common_options(verb, flags->common);
  verb.callback([&job, flags] { job.run = [flags] { return run(*flags); }; });
}

}  // namespace skein
