// skein serve: a base and its experts behind OpenAI's API.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <thread>

#include "skein/base/concat.h"
#include "skein/base/interrupt.h"
#include "skein/base/log.h"
#include "skein/cli/common_options.h"
#include "skein/cli/model_flags.h"
#include "skein/cli/option_file.h"
#include "skein/cli/verbs.h"
#include "skein/nn/compute.h"
#include "skein/serve/engine.h"
#include "skein/serve/http_server.h"
#include "skein/serve/service.h"

namespace skein {
namespace {

struct ServeFlags {
  ModelFlags model;
  std::vector<std::string> adapters, mixtures;
  EngineOptions engine;
  HttpServerOptions http;
  ServiceOptions service;
  std::string name, config, api_key_file, adapter_folder, log = "text";
  bool no_prefix_reuse = false;
  std::int64_t cache_mib = 0, adapter_mib = 1024;
  int max_adapters = 64;
  double header_s = 10, body_s = 30, idle_s = 75, write_s = 30, answer_s = 600, stop_s = 30;
  CommonOptions common;
};

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
}

// A connection is a descriptor; the usual soft limit of 1024 is for programs that use select().
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// "models/smollm2.gguf" -> "smollm2".
std::string default_name(const std::string& base) {
  std::string path = base;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  std::string name = base_name(path);
  if (name.size() > 5 && name.compare(name.size() - 5, 5, ".gguf") == 0) name.resize(name.size() - 5);
  return name;
}

EngineOptions engine_options(const ServeFlags& flags, const std::string& library) {
  EngineOptions options = flags.engine;
  set_compute_threads(flags.common.num_threads);
  options.model.base = flags.model.base;
  options.model.library = library;
  options.model.sentence_encoder = flags.model.sentence_encoder;
  options.model.allow_other_base = flags.model.allow_other_base;
  options.model.compute = compute_options(flags.model);
  options.mixtures = flags.mixtures;
  options.cache_bytes = flags.cache_mib << 20;
  options.reuses_prefixes = !flags.no_prefix_reuse;
  return options;
}

ServiceOptions service_options(const ServeFlags& flags) {
  ServiceOptions options = flags.service;
  options.base_name = flags.name.empty() ? default_name(flags.model.base) : flags.name;
  options.host = flags.http.host;
  options.answer_timeout = milliseconds(flags.answer_s);
  options.log = flags.log == "json" ? LogKind::kJson : flags.log == "none" ? LogKind::kNone : LogKind::kText;
  options.version = SKEIN_VERSION;
  if (!flags.api_key_file.empty()) options.keys = or_throw(ApiKeys::read(real_env(), flags.api_key_file));
  return options;
}

HttpServerOptions http_options(const ServeFlags& flags) {
  HttpServerOptions options = flags.http;
  options.header_timeout = milliseconds(flags.header_s);
  options.body_timeout = milliseconds(flags.body_s);
  options.idle_timeout = milliseconds(flags.idle_s);
  options.write_timeout = milliseconds(flags.write_s);
  return options;
}

int serve(ServeFlags& flags) {
  apply_common_options(flags.common);
  raise_descriptor_limit();
  const ServiceOptions options = service_options(flags);
  ServedPool pool(real_env(), {.base = flags.model.base,
                               .library = flags.model.library,
                               .adapters = flags.adapters,
                               .adapter_folder = flags.adapter_folder,
                               .max_loaded = flags.max_adapters,
                               .adapter_limits = {.max_bytes = static_cast<std::uint64_t>(flags.adapter_mib) << 20},
                               .allow_other_base = flags.model.allow_other_base});
  const std::unique_ptr<Engine> engine = Engine::load(real_env(), engine_options(flags, pool.library()));
  Service service(*engine, pool, options);
  HttpServer server(http_options(flags),
                    [&](const std::shared_ptr<HttpExchange>& exchange) { service.handle(exchange); });
  const bool is_ipv6 = flags.http.host.find(':') != std::string::npos;
  log_event(options.log, concat("serving ", options.base_name, " and ", engine->models().size() - 1,
                                " further models on http://", is_ipv6 ? "[" : "", flags.http.host, is_ipv6 ? "]" : "",
                                ":", server.port(), options.keys.is_open() ? "" : ", with API keys"));
  while (!interrupted()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
    service.look_after();
  }
  // Still listening, so that who asks is told: /ready and new requests are answered 503 while answers are finished.
  service.announce_stop();
  engine->stop(milliseconds(flags.stop_s));
  server.shut_down(std::chrono::seconds(3));
  log_event(options.log, "stopped");
  return 0;
}

void add_limits(CLI::App& verb, ServeFlags& flags) {
  const std::string group = "Limits";
  const auto count = [&](const std::string& name, auto& value, const std::string& help) {
    verb.add_option(name, value, help)->type_name("N")->check(CLI::PositiveNumber)->capture_default_str()->group(group);
  };
  const auto seconds = [&](const std::string& name, double& value, const std::string& help) {
    verb.add_option(name, value, help)
        ->type_name("SECONDS")
        ->check(CLI::Range(0.0, 1e6))
        ->capture_default_str()
        ->group(group);
  };
  count("--max-running", flags.engine.max_running, "Sequences in one step of the batch");
  count("--max-waiting", flags.engine.max_waiting, "Sequences in the queue; more are answered 429");
  count("--prefill-tokens", flags.engine.prefill_tokens,
        "Tokens of prompts read in a step: more is faster for prompts, slower for answers");
  verb.add_option("--cache-mib", flags.cache_mib,
                  "Keys and values, in MiB; 0: for --max-running half-full contexts, at most 2 GiB")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str()
      ->group(group);
  count("--max-tokens", flags.service.limits.max_tokens, "Tokens of one answer");
  count("--max-prompt-bytes", flags.service.limits.max_prompt_bytes, "Of all prompts of a request");
  count("--max-choices", flags.service.limits.max_choices, "Answers to one request: prompts times n");
  count("--max-adapters", flags.max_adapters, "Adapters loaded by /v1/load_lora_adapter at a time");
  count("--max-adapter-mib", flags.adapter_mib, "MiB of one of them, its files together");
  count("--max-body-bytes", flags.http.max_body_bytes, "Of a request's body; more is answered 413");
  count("--max-header-bytes", flags.http.max_header_bytes, "Of a request's header; more is answered 431");
  count("--max-connections", flags.http.max_connections, "Open connections; more are answered 503");
  seconds("--header-timeout", flags.header_s, "For a request's header");
  seconds("--body-timeout", flags.body_s, "For a request's body");
  seconds("--idle-timeout", flags.idle_s, "Between two requests of a connection");
  seconds("--write-timeout", flags.write_s, "For a client that does not read its answer");
  seconds("--answer-timeout", flags.answer_s, "For one answer, waiting included");
  seconds("--stop-timeout", flags.stop_s, "After SIGTERM or Ctrl-C: for the answers under way");
}

}  // namespace

void add_serve_verb(CLI::App& program, Job& job) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App& verb = add_command(program, "serve", "Serve a base and its experts behind OpenAI's API, with a page",
                               "skein serve --base models/smollm2.gguf --library pool\n"
                               "skein serve --config serve.yml --api-key-file keys.txt --host 0.0.0.0 --log json");
  add_base_flags(verb, flags->model);
  add_base_bits(verb, flags->model);
  verb.get_option("--base")->required(false);  // the file of --config may have it
  const std::string experts = "Experts";
  CLI::Option* library =
      verb.add_option("--library", flags->model.library, "A pool of experts: each is a model, and so is each router")
          ->type_name("LIB")
          ->group(experts);
  verb.add_option("--adapter", flags->adapters, "PEFT adapters to serve without a library")
      ->type_name("ADAPTER")
      ->group(experts)
      ->excludes(library);
  verb.add_option("--mixture", flags->mixtures, "Experts and routers trained together: folders of train mov or molora")
      ->type_name("DIR")
      ->group(experts);
  verb.add_option("--sentence-encoder", flags->model.sentence_encoder, "For the routers retrieval and task-description")
      ->type_name("DIR")
      ->capture_default_str()
      ->group(experts);
  verb.add_option(
          "--adapter-folder", flags->adapter_folder,
          "Let /v1/load_lora_adapter add adapters of this folder to the library; without it the endpoint is off")
      ->type_name("DIR")
      ->group(experts);
  verb.add_flag("--no-prefix-reuse", flags->no_prefix_reuse, "Read every prompt anew");
  verb.add_option("--name", flags->name, "The base's name in the API (default: of its file)")->type_name("NAME");
  verb.add_option("--host", flags->http.host, "Address to listen on; 0.0.0.0 or :: for all, then with --api-key-file")
      ->type_name("ADDRESS")
      ->capture_default_str();
  verb.add_option("--port", flags->http.port, "Port; 0: one that is free, printed")
      ->type_name("PORT")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  verb.add_option("--allowed-host", flags->service.allowed_hosts,
                  "On a loopback address: further names that clients may call it by (a proxy's)")
      ->type_name("NAME");
  verb.add_option("--api-key-file", flags->api_key_file, "Ask for one of these keys, one a line")->type_name("FILE");
  verb.add_option("--log", flags->log,
                  "A line on stderr for each request: text, json or none; texts and keys are never logged")
      ->type_name("KIND")
      ->check(CLI::IsMember({"text", "json", "none"}))
      ->capture_default_str();
  verb.add_option("--config", flags->config,
                  "These options from a .yml file; the command line and SKEIN_SERVE_... variables come first")
      ->type_name("FILE");
  add_limits(verb, *flags);
  add_common_options(verb, flags->common);
  take_options_from_environment(verb, "SKEIN_SERVE");
  verb.callback([&job, &verb, flags] {
    job.run = [&verb, flags] {
      if (!flags->config.empty()) take_options_from_file(verb, flags->config);
      if (flags->model.base.empty()) throw Failure({"skein serve needs --base BASE", ErrorKind::kUsage});
      return serve(*flags);
    };
  });
}

}  // namespace skein
