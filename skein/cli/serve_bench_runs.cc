// The measurements of skein bench serve.
#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <thread>

#include "skein/base/concat.h"
#include "skein/base/interrupt.h"
#include "skein/base/log.h"
#include "skein/base/median.h"
#include "skein/base/thread_pool.h"
#include "skein/cli/child_run.h"
#include "skein/cli/serve_bench.h"
#include "skein/cli/serve_load.h"
#include "skein/cli/step_bytes.h"
#include "skein/cli/text_table.h"
#include "skein/experts/random_experts.h"
#include "skein/io/temporary_folder.h"
#include "skein/nn/compute.h"
#include "skein/spec/library.h"

namespace skein {
namespace {

constexpr char kBaseName[] = "base";
constexpr std::int64_t kArrivalPrompt = 256;

// ---- servers ----

class BenchServer {
 public:
  BenchServer(std::string what, int port, const std::vector<std::string>& words)
      : what_(std::move(what)), port_(port), child_(words) {
    constexpr int kTenthsOfSeconds = 1200;
    for (int i = 0; i < kTenthsOfSeconds && !interrupted(); ++i) {
      if (!child_.is_running()) throw Failure({concat(what_, " has ended:\n", child_.last_words())});
      if (status_of(port_, "/health") == 200) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    throw Failure({concat(what_, " is not ready after ", kTenthsOfSeconds / 10, " s:\n", child_.last_words())});
  }
  int port() const { return port_; }
  double resident_mb() const { return static_cast<double>(child_.resident_bytes()) / 1e6; }

 private:
  std::string what_;
  int port_;
  RunningChild child_;
};

std::unique_ptr<BenchServer> start_skein(const ServeBenchOptions& options, const std::string& library,
                                         const std::vector<std::string>& more = {}) {
  const int port = free_port();
  std::vector<std::string> words = {
      own_program(),        "serve", "--base", options.base, "--name", kBaseName,   "--port",
      std::to_string(port), "--log", "none",   "--progress", "none",   "--threads", std::to_string(num_threads())};
  if (!options.dtype.empty()) words.insert(words.end(), {"--dtype", options.dtype});
  if (options.base_bits != 0) words.insert(words.end(), {"--base-bits", std::to_string(options.base_bits)});
  if (!library.empty()) words.insert(words.end(), {"--library", library, "--allow-other-base"});
  words.insert(words.end(), more.begin(), more.end());
  return std::make_unique<BenchServer>("skein serve", port, words);
}

// llama-server on the same weights in the same precision.
std::unique_ptr<BenchServer> start_peer(const ServeBenchOptions& options, const std::string& folder) {
  const std::string dtype = options.dtype.empty() ? "bf16" : options.dtype;
  std::string source = options.base;
  if (source.ends_with(".gguf")) {  // by way of a folder
    source = folder + "/base";
    or_throw(run_child({own_program(), "convert", options.base, source, "--dtype", "f32", "--progress", "none"}));
  }
  const std::string file = folder + "/base.gguf";
  or_throw(run_child({own_program(), "convert", source, file, "--dtype", dtype, "--progress", "none"}));
  const int port = free_port();
  const std::int64_t context = kArrivalPrompt + options.prompt_tokens + options.new_tokens + 64;  // of one slot
  return std::make_unique<BenchServer>(
      "llama-server", port,
      std::vector<std::string>{options.peer, "--model", file, "--host", "127.0.0.1", "--port", std::to_string(port),
                               "-np", std::to_string(options.streams), "-t", std::to_string(num_threads()), "-c",
                               std::to_string(context * options.streams)});
}

// ---- a library of made experts ----

// LoRAs of rank 16 on every linear, one drawn and copied, since only their bytes count here; gates drawn for each,
// which scatters tokens over all of them.
void write_experts(const ServeBenchOptions& options, const std::string& folder, const std::string& library_path) {
  Env& env = real_env();
  const BaseModel base = or_throw(open_base_model(env, options.base));
  const std::vector<SlotName> slots = slot_names(base.config);
  std::mt19937_64 generator(options.common.seed);
  LoraAdapter adapter = random_adapter(slots, std::vector<std::int64_t>(slots.size(), 16), generator);
  adapter.config.rank = 16;
  adapter.config.alpha = 8;
  adapter.config.target_modules = {std::string(kAllLinear)};
  // Small updates: the text is the base's, nearly.
  for (LoraTensors& module : adapter.modules) {
    for (float& value : module.b) value *= 0.01F;
  }
  or_throw(env.make_folders(folder));
  or_throw(write_lora_adapter(env, folder, adapter, slots));
  Library library = or_throw(create_library(env, library_path, base));
  for (int e = 0; e < options.num_experts; ++e) {
    or_throw(write_gate(env, folder, random_gate(slots, generator), slots));
    or_throw(add_expert(env, library, base, folder, {.name = concat("made", e)}));
  }
}

// ---- requests ----

struct Lengths {
  std::int64_t prompt = 0, answer = 0;
};

// No two prompts alike, so that nothing is reused.
class Prompts {
 public:
  explicit Prompts(std::uint64_t seed) : generator_(seed) {}
  std::int64_t draw(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(generator_() % static_cast<std::uint64_t>(high - low + 1));
  }
  LoadRequest request(const std::string& model, const Lengths& lengths) {
    LoadRequest request{.model = model, .max_tokens = lengths.answer};
    for (std::int64_t i = 0; i < lengths.prompt; ++i) request.prompt.push_back(static_cast<TokenId>(draw(1000, 20999)));
    return request;
  }
  NextRequest some(const std::string& model, const Lengths& lengths, int count) {
    return [this, model, lengths, left = count]() mutable -> std::optional<LoadRequest> {
      if (left-- <= 0) return std::nullopt;
      return request(model, lengths);
    };
  }

 private:
  std::mt19937_64 generator_;
};

const LoadResult& checked(const std::string& what, const LoadResult& result) {
  if (interrupted()) throw Failure({"interrupted", ErrorKind::kInterrupted});
  for (const LoadAnswer& answer : result.answers) {
    if (!answer.is_whole()) {
      throw Failure({concat(what, ": ", answer.failure.empty() ? concat("status ", answer.status) : answer.failure)});
    }
  }
  return result;
}

// ---- throughput ----

struct Subject {
  std::string what;  // "skein", "llama-server", "skein, routed"
  int port = 0;
  std::string model;
};

// Of several rounds, in turns.
struct Speeds {
  std::vector<double> one, many;  // tokens per second
  LoadResult last;                // of many
};

Json speed_row(const std::string& what, int streams, double tokens_per_s, const LoadResult& result) {
  const std::vector<double> first = result.first_tokens_s(), gaps = result.gaps_s();
  return {{"what", what},
          {"streams", streams},
          {"tokens_per_s", tokens_per_s},
          {"first_token_p50_s", quantile(first, 0.5)},
          {"first_token_p95_s", quantile(first, 0.95)},
          {"gap_p50_s", quantile(gaps, 0.5)},
          {"gap_p95_s", quantile(gaps, 0.95)}};
}

std::vector<Speeds> measure_speeds(const ServeBenchOptions& options, const std::vector<Subject>& subjects, Json& rows) {
  const Lengths lengths{options.prompt_tokens, options.new_tokens};
  std::vector<Speeds> speeds(subjects.size());
  std::vector<LoadResult> last_one(subjects.size());
  for (const Subject& subject : subjects) {  // what is read or made at the first request is not timed
    Prompts prompts(options.common.seed);
    checked(subject.what, load_with_streams(subject.port, 2, prompts.some(subject.model, lengths, 2)));
  }
  for (int round = 0; round < options.rounds; ++round) {
    for (std::size_t s = 0; s < subjects.size(); ++s) {
      const Subject& subject = subjects[s];
      Prompts prompts(options.common.seed + 1 + static_cast<std::uint64_t>(round));  // the same for every subject
      const auto load = [&](int streams) {
        return checked(subject.what,
                       load_with_streams(subject.port, streams, prompts.some(subject.model, lengths, streams)));
      };
      last_one[s] = load(1);
      speeds[s].one.push_back(last_one[s].tokens_per_s());
      speeds[s].last = load(options.streams);
      speeds[s].many.push_back(speeds[s].last.tokens_per_s());
      log_info(concat(subject.what, ": 1 stream ", fixed(speeds[s].one.back(), 1), " tokens/s, ", options.streams,
                      " streams ", fixed(speeds[s].many.back(), 1)));
    }
  }
  for (std::size_t s = 0; s < subjects.size(); ++s) {
    rows.push_back(speed_row(subjects[s].what, 1, median(speeds[s].one), last_one[s]));
    rows.push_back(speed_row(subjects[s].what, options.streams, median(speeds[s].many), speeds[s].last));
  }
  return speeds;
}

// ---- arrivals ----

// Time to the first token at half of the rate that keeps `streams` busy, against a server with nothing else to do.
void measure_arrivals(const ServeBenchOptions& options, const Subject& subject, Json& rows, BenchBars& bars) {
  const Lengths lengths{kArrivalPrompt, options.new_tokens};
  Prompts prompts(options.common.seed + 100);
  const auto alone =
      checked(subject.what, load_with_streams(subject.port, 1, prompts.some(subject.model, {kArrivalPrompt, 1}, 8)));
  const int busy = 2 * options.streams;
  const auto full = checked(
      subject.what, load_with_streams(subject.port, options.streams, prompts.some(subject.model, lengths, busy)));
  const double rate = 0.5 * busy / full.seconds;
  const auto half = checked(subject.what, load_with_arrivals(subject.port, rate, options.seconds, options.common.seed,
                                                             prompts.some(subject.model, lengths, 1 << 30)));
  const double unloaded = median(alone.first_tokens_s());
  Json row = speed_row(subject.what + ", arrivals", 0, half.tokens_per_s(), half);
  row["arrivals_per_s"] = rate;
  row["requests"] = half.answers.size();
  row["first_token_unloaded_s"] = unloaded;
  log_info(concat(subject.what, ": ", half.answers.size(), " arrivals, ", fixed(rate, 2),
                  " a second, first token after ", fixed(row["first_token_p95_s"].get<double>(), 3),
                  " s at p95, alone ", fixed(unloaded, 3), " s"));
  bars.at_most(
      concat("time to first token, p95 of ", kArrivalPrompt, "-token prompts at half load / unloaded, ", subject.what),
      row["first_token_p95_s"].get<double>() / unloaded, 3);
  rows.push_back(std::move(row));
}

// ---- routed ----

// The bytes that a step with `streams` routed answers reads, from their traces.
StepBytes traced_bytes(const ServeBenchOptions& options, const Subject& subject, const std::string& library) {
  Prompts prompts(options.common.seed + 1);
  const NextRequest plain = prompts.some(subject.model, {options.prompt_tokens, options.new_tokens}, options.streams);
  const LoadResult result = load_with_streams(subject.port, options.streams, [&]() {
    std::optional<LoadRequest> request = plain();
    if (request) request->wants_trace = true;
    return request;
  });
  std::vector<std::vector<Json>> traces;
  for (const LoadAnswer& answer : checked(subject.what, result).answers) traces.push_back(answer.traces);
  const ComputeOptions compute = or_throw(compute_options("cpu", options.dtype));
  const BaseModel base = or_throw(open_base_model(real_env(), options.base));
  return step_bytes(real_env(), base, library, traces, static_cast<double>(c10::elementSize(compute.dtype)));
}

}  // namespace

Json bench_throughput(const ServeBenchOptions& options, BenchBars& bars) {
  const TemporaryFolder work("skein-bench-serve");
  std::string library = options.library;
  if (library.empty() && options.num_experts > 0) {
    library = work / "library";
    write_experts(options, work / "made", library);
  }
  std::unique_ptr<BenchServer> peer;
  if (!options.peer.empty()) peer = start_peer(options, work.path());
  const auto skein = start_skein(options, library);
  std::vector<Subject> subjects = {{"skein", skein->port(), kBaseName}};
  if (peer != nullptr) subjects.push_back({"llama-server", peer->port(), kBaseName});
  const std::size_t routed = subjects.size();
  if (!library.empty()) subjects.push_back({"skein, routed", skein->port(), "skein/" + options.router});

  Json rows = Json::array();
  const std::vector<Speeds> speeds = measure_speeds(options, subjects, rows);
  const double many = median(speeds[0].many);
  const std::string with_streams = concat("tokens/s, ", options.streams, " streams / ");
  bars.at_least(with_streams + "one", many / median(speeds[0].one), 3);
  if (peer != nullptr) bars.at_least(with_streams + "llama-server's", many / median(speeds[1].many), 1.2);
  if (!library.empty()) {
    const StepBytes bytes = traced_bytes(options, subjects[routed], library);
    const double bound = many * bytes.bound(), measured = median(speeds[routed].many);
    rows.push_back({{"what", "skein, routed: bandwidth bound"},
                    {"streams", options.streams},
                    {"tokens_per_s", bound},
                    {"base_mb_per_step", bytes.base / 1e6},
                    {"gates_mb_per_step", bytes.gates / 1e6},
                    {"experts_mb_per_step", bytes.experts / 1e6}});
    log_info(concat("a routed step reads ", fixed(bytes.base / 1e6, 1), " MB of the base, ",
                    fixed(bytes.gates / 1e6, 1), " of gates, ", fixed(bytes.experts / 1e6, 1),
                    " of the experts its tokens chose: at the base's ", fixed(many, 1), " tokens/s the bound is ",
                    fixed(bound, 1), ", measured ", fixed(measured, 1)));
    bars.at_least("tokens/s, routed / bandwidth bound", measured / bound, 0.85);
  }
  if (options.seconds > 0) {
    for (std::size_t s = 0; s < routed; ++s) measure_arrivals(options, subjects[s], rows, bars);
  }
  return rows;
}

// ---- load ----

Json bench_long_load(const ServeBenchOptions& options, BenchBars& bars) {
  constexpr int kRunning = 64;
  const int capacity = kRunning + options.streams;
  const auto server = start_skein(options, options.library,
                                  {"--max-running", std::to_string(kRunning), "--max-waiting",
                                   std::to_string(options.streams), "--max-connections", std::to_string(4 * capacity)});
  std::vector<std::string> models = {kBaseName};
  if (!options.library.empty()) models.push_back("skein/" + options.router);

  using Clock = std::chrono::steady_clock;
  const double seconds = 60 * options.minutes;
  const Clock::time_point start = Clock::now();
  const auto passed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  const double resident_at_start = server->resident_mb();
  std::vector<double> resident;  // ten samples a minute
  std::atomic<bool> is_over = false;
  std::thread sampler([&] {
    while (!is_over) {
      resident.push_back(server->resident_mb());
      if (resident.size() % 10 == 0)
        log_info(concat(fixed(passed(), 0), " s, ", fixed(resident.back(), 0), " MB resident"));
      for (int i = 0; i < 60 && !is_over; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  });
  Prompts prompts(options.common.seed);
  std::int64_t num_left = 0;
  // Lengths as they come; every sixteenth client leaves in the middle.
  const LoadResult result = load_with_streams(server->port(), options.streams, [&]() -> std::optional<LoadRequest> {
    if (passed() > seconds) return std::nullopt;
    LoadRequest request =
        prompts.request(models[static_cast<std::size_t>(prompts.draw(0, static_cast<std::int64_t>(models.size()) - 1))],
                        {prompts.draw(8, 200), prompts.draw(8, 64)});
    if (prompts.draw(0, 15) == 0) request.leaves_after = 4, ++num_left;
    return request;
  });
  is_over = true;
  sampler.join();
  if (interrupted()) throw Failure({"interrupted", ErrorKind::kInterrupted});

  // More at once than run and wait.
  const int burst_size = capacity + kRunning;
  const LoadResult burst = load_with_streams(server->port(), burst_size, prompts.some(kBaseName, {64, 32}, burst_size));
  std::int64_t refused = 0, refused_well = 0, whole = 0;
  for (const LoadAnswer& answer : burst.answers) {
    refused += answer.status == 429;
    refused_well += answer.status == 429 && answer.says_when;
    whole += answer.is_whole();
  }
  const std::int64_t burst_failed = burst_size - refused - whole;
  std::int64_t failed = 0;
  for (const LoadAnswer& answer : result.answers) failed += !answer.is_whole();
  for (const LoadResult* part : {&result, &burst}) {
    for (const std::string& failure : part->failures()) log_warning(failure);
  }
  const auto fifth = static_cast<std::ptrdiff_t>(resident.size() / 5);
  const double warm = median({resident.begin() + fifth, resident.begin() + std::max(fifth + 1, 2 * fifth)});
  const double end = median({resident.end() - std::max<std::ptrdiff_t>(1, fifth), resident.end()});
  bars.at_most("failed requests", static_cast<double>(failed + burst_failed), 0);
  bars.at_most("resident memory, last fifth / second fifth", end / warm, 1.05);
  bars.at_least(concat("of ", burst_size, " at once: refused with 429 and Retry-After / refused"),
                refused == 0 ? 0 : static_cast<double>(refused_well) / static_cast<double>(refused), 1);
  Json row = speed_row("skein", options.streams, result.tokens_per_s(), result);
  row.update({{"requests", result.answers.size()},
              {"left_in_the_middle", num_left},
              {"failed", failed},
              {"resident_at_start_mb", resident_at_start},
              {"resident_warm_mb", warm},
              {"resident_end_mb", end}});
  return Json::array({std::move(row),
                      {{"what", "more than the queue holds"},
                       {"streams", burst_size},
                       {"requests", burst_size},
                       {"refused", refused},
                       {"answered", whole},
                       {"failed", burst_failed}}});
}

}  // namespace skein
