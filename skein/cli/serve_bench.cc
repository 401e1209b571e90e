// skein bench serve: options and tables.
#include "skein/cli/serve_bench.h"

#include <CLI/CLI.hpp>

#include "skein/base/concat.h"
#include "skein/base/thread_pool.h"
#include "skein/cli/bench_verbs.h"
#include "skein/cli/result_output.h"
#include "skein/cli/text_table.h"

namespace skein {
namespace {

constexpr char kUnits[] =
    "tokens per second of whole answers, prompts included; times in ms: to the first token, and between tokens";

std::string cell(const Json& row, const char* key, double factor, int digits) {
  return row.contains(key) && row[key].is_number() ? fixed(factor * row[key].get<double>(), digits) : "-";
}

void print_speeds(const Json& rows) {
  using enum TextTable::Align;
  TextTable table({{"what", kLeft}, {"streams"}, {"tokens/s"}, {"first p50"}, {"first p95"}, {"gap p50"}, {"gap p95"}});
  for (const Json& row : rows) {
    const auto time = [&](const char* key) { return cell(row, key, 1e3, 1); };
    table.add_row({row["what"].get<std::string>(), cell(row, "streams", 1, 0), cell(row, "tokens_per_s", 1, 1),
                   time("first_token_p50_s"), time("first_token_p95_s"), time("gap_p50_s"), time("gap_p95_s")});
  }
  print_text(table.render(is_styled(stdout)) + "\n");
}

void print_load(const Json& rows) {
  using enum TextTable::Align;
  TextTable table({{"what", kLeft},
                   {"streams"},
                   {"requests"},
                   {"refused"},
                   {"failed"},
                   {"tokens/s"},
                   {"MB at start"},
                   {"warm"},
                   {"at the end"}});
  for (const Json& row : rows) {
    const auto number = [&](const char* key) { return cell(row, key, 1, 0); };
    table.add_row({row["what"].get<std::string>(), number("streams"), number("requests"), number("refused"),
                   number("failed"), number("tokens_per_s"), number("resident_at_start_mb"), number("resident_warm_mb"),
                   number("resident_end_mb")});
  }
  print_text(table.render(is_styled(stdout)) + "\n");
}

int run(const ServeBenchOptions& options) {
  apply_common_options(options.common);
  const bool is_load = options.minutes > 0;
  if (is_load && (!options.peer.empty() || options.num_experts > 0)) {
    throw Failure({"--minutes is a measurement of its own, without --peer and --experts", ErrorKind::kUsage});
  }
  if (options.base_bits != 0 && (options.num_experts > 0 || !options.library.empty())) {
    throw Failure({"the bandwidth bound is of a base in full precision; leave out --base-bits or the experts",
                   ErrorKind::kUsage});
  }
  BenchBars bars;
  const Json rows = is_load ? bench_long_load(options, bars) : bench_throughput(options, bars);
  if (options.common.json) {
    print_json({{"unit", kUnits}, {"threads", num_threads()}, {"rows", rows}, {"ratios", bars.to_json()}});
    return 0;
  }
  print_text(concat(kUnits, "; ", num_threads(), " threads\n"));
  is_load ? print_load(rows) : print_speeds(rows);
  print_text(bars.render(is_styled(stdout)));
  return 0;
}

}  // namespace

void add_serve_bench(CLI::App& bench, Job& job) {
  auto options = std::make_shared<ServeBenchOptions>();
  CLI::App& verb = add_command(
      bench, "serve", "skein serve under load: streams beside llama-server, a routed pool, arrivals, a long run",
      "skein bench serve --peer llama.cpp/build/bin/llama-server\n"
      "skein bench serve --experts 36\n"
      "skein bench serve --streams 256 --minutes 10");
  verb.add_option("--base", options->base,
                  "The base model; it is served, by the peer as a GGUF file of the same precision")
      ->type_name("BASE")
      ->capture_default_str();
  verb.add_option("--peer", options->peer, "llama-server of llama.cpp to measure beside")->type_name("PROGRAM");
  CLI::Option* library =
      verb.add_option("--library", options->library, "A pool of experts: routed streams beside the bandwidth bound")
          ->type_name("LIB");
  verb.add_option("--experts", options->num_experts, "Instead: a pool of N made experts of rank 16")
      ->type_name("N")
      ->check(CLI::Range(1, 10000))
      ->excludes(library);
  verb.add_option("--router", options->router, "Of the pool")->type_name("ROUTER")->capture_default_str();
  verb.add_option("--dtype", options->dtype, "f32 or bf16")->type_name("TYPE")->default_str("bf16");
  verb.add_option("--base-bits", options->base_bits, "As in skein serve")
      ->type_name("BITS")
      ->check(CLI::IsMember(std::vector<int>{8, 4}));
  const auto count = [&](const char* name, auto& value, const char* help) {
    verb.add_option(name, value, help)->type_name("N")->check(CLI::PositiveNumber)->capture_default_str();
  };
  count("--streams", options->streams, "Clients at once");
  count("--prompt-tokens", options->prompt_tokens, "Of a prompt; no two are alike");
  count("--new-tokens", options->new_tokens, "Of an answer");
  count("--rounds", options->rounds, "Times each is run, in turns; the median counts");
  verb.add_option("--seconds", options->seconds,
                  "How long requests arrive, at half of the busy server's rate; 0: not at all")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.0, 1e5))
      ->capture_default_str();
  verb.add_option("--minutes", options->minutes,
                  "Instead of all else: so long a load of mixed requests, then more at once than the queue holds")
      ->type_name("MINUTES")
      ->check(CLI::Range(0.0, 1e5));
  add_common_options(verb, options->common);
  verb.callback([&job, options] { job.run = [options] { return run(*options); }; });
}

}  // namespace skein
