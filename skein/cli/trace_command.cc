// skein trace: which expert each token chose.
#include <CLI/CLI.hpp>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/cli/model_flags.h"
#include "skein/cli/prompt_input.h"
#include "skein/cli/result_output.h"
#include "skein/cli/routed_trace.h"
#include "skein/cli/text_table.h"
#include "skein/cli/trace_page.h"
#include "skein/cli/verbs.h"
#include "skein/infer/decode.h"

namespace skein {
namespace {

struct TraceFlags {
  ModelFlags model;
  PromptFlags prompt;
  CommonOptions common;
  std::int64_t max_new_tokens = 16;
  std::string out, html;
  std::string against;
  int against_top_k = 2;
  bool overwrite = false;
};

// Those that need nothing more to be said.
std::vector<std::string> second_routers() {
  std::vector<std::string> names;
  for (const RouterKind& kind : router_kinds()) {
    if (!kind.needs_hints && kind.name != std::string("single")) names.emplace_back(kind.name);
  }
  return names;
}

void write_output(const std::string& path, const std::string& text) {
  if (path.empty()) return;
  or_throw(write_text_atomically(real_env(), path, text));
  log_info("wrote " + path);
}

int trace(TraceFlags& flags) {
  ModelOptions options = model_options(flags.model, flags.common);
  refuse_existing(flags.out, flags.overwrite);
  refuse_existing(flags.html, flags.overwrite);
  LoadedModel model = load_model(real_env(), options);
  const std::vector<TokenId> prompt = prompt_tokens(flags.prompt, model);
  std::vector<TokenId> answer;
  if (flags.max_new_tokens > 0) {
    ForwardState state = model.new_state();
    answer = decode(*model.backbone, *model.tokenizer, prompt,
                    {.max_new_tokens = flags.max_new_tokens, .hints = {prompt_hint(flags.prompt, model)}}, state)
                 .tokens;
  }
  std::vector<Trace> traces = {
      trace_tokens(model, prompt, answer, expert_words(options), prompt_hint(flags.prompt, model))};
  if (!flags.against.empty()) {
    options.router = default_router(flags.against);
    options.router.top_k = std::min(flags.against_top_k, model.bank->num_experts());
    options.router.seed = flags.common.seed;
    change_experts(real_env(), model, options);
    traces.push_back(
        trace_tokens(model, prompt, answer, router_words(options.router), prompt_hint(flags.prompt, model)));
  }

  std::string lines;
  for (const Json& line : trace_lines(traces.front())) lines += json_line(line) + "\n";
  write_output(flags.out, lines);
  if (!flags.html.empty()) write_output(flags.html, trace_page(traces));
  print_text(flags.common.json ? lines : trace_text(traces.front(), is_styled(stdout)));
  return 0;
}

}  // namespace

void add_trace_verb(CLI::App& program, Job& job) {
  auto flags = std::make_shared<TraceFlags>();
  CLI::App& verb = add_command(
      program, "trace", "Which expert each token chose at each layer and module",
      "skein trace --base models/smollm2.gguf --library pool --prompt 'Who wrote Hamlet?' --html trace.html\n"
      "skein trace --base models/smollm2.gguf --library pool --prompt-file text.txt --against uniform --html "
      "both.html");
  add_prompt_input(verb, flags->prompt);
  verb.add_option("--max-new-tokens", flags->max_new_tokens, "Tokens of answer to write and trace; 0: the prompt alone")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--out", flags->out, "Write the trace as JSON lines")->type_name("FILE");
  CLI::Option* html = verb.add_option("--html", flags->html, "Write a page with heat maps")->type_name("FILE");
  CLI::Option* against =
      verb.add_option("--against", flags->against, "Show a second router beside the first, as its authors have it")
          ->type_name("ROUTER")
          ->check(CLI::IsMember(second_routers()))
          ->needs(html);
  verb.add_option("--against-top-k", flags->against_top_k, "Experts per token and module of the second router")
      ->type_name("K")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->needs(against);
  add_overwrite_option(verb, flags->overwrite);
  add_model_flags(verb, flags->model);
  add_common_options(verb, flags->common);
  verb.callback([&job, flags] { job.run = [flags] { return trace(*flags); }; });
}

}  // namespace skein
