// skein generate: writes text.
#include <CLI/CLI.hpp>

#include <chrono>
#include <cstdio>

#include "skein/base/concat.h"
#include "skein/base/interrupt.h"
#include "skein/base/log.h"
#include "skein/cli/model_flags.h"
#include "skein/cli/prompt_input.h"
#include "skein/cli/result_output.h"
#include "skein/cli/routed_trace.h"
#include "skein/cli/text_table.h"
#include "skein/cli/verbs.h"
#include "skein/infer/decode.h"

namespace skein {
namespace {

struct GenerateFlags {
  ModelFlags model;
  PromptFlags prompt;
  DecodeOptions decode;
  std::string trace;
  bool overwrite = false;
  CommonOptions common;
};

void write_trace(const GenerateFlags& flags, const LoadedModel& model, const std::vector<TokenId>& prompt,
                 const Decoded& decoded, const std::string& router) {
  std::string lines;
  for (const Json& line : trace_lines(trace_tokens(model, prompt, decoded.tokens, router, flags.decode.hints.front())))
    lines += json_line(line) + "\n";
  or_throw(write_text_atomically(real_env(), flags.trace, lines));
  log_info(concat("wrote ", flags.trace, "; skein trace --html draws it"));
}

int generate(GenerateFlags& flags) {
  using Clock = std::chrono::steady_clock;
  const ModelOptions options = model_options(flags.model, flags.common);
  if (!flags.trace.empty() && flags.model.library.empty() && flags.model.mixture.empty()) {
    throw Failure({"--trace says which expert each token chose and needs --library or --mixture", ErrorKind::kUsage});
  }
  refuse_existing(flags.trace, flags.overwrite);
  const LoadedModel model = load_model(real_env(), options);
  const std::vector<TokenId> prompt = prompt_tokens(flags.prompt, model);
  flags.decode.seed = flags.common.seed;
  flags.decode.hints = {prompt_hint(flags.prompt, model)};

  ForwardState state = model.new_state();
  const auto started = Clock::now();
  const bool streams = !flags.common.json;
  const Decoded decoded =
      decode(*model.backbone, *model.tokenizer, prompt, flags.decode, state, [&](std::string_view piece) {
        if (!streams) return;
        print_text(piece);
        std::fflush(stdout);
      });
  const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
  const Json pages = report_expert_pages(model);
  if (streams) {
    print_text("\n");
  } else {
    Json result = {{"text", decoded.text},
                   {"tokens", decoded.tokens},
                   {"ended", decoded.ended},
                   {"prompt_tokens", prompt.size()},
                   {"seconds", seconds}};
    if (!pages.is_null()) result["expert_pages"] = pages;
    print_json(result);
  }
  if (interrupted()) throw Failure({"interrupted; what was written so far stands", ErrorKind::kInterrupted});
  log_info(concat(prompt.size(), " tokens read, ", decoded.tokens.size(), " written in ", fixed(seconds, 2), " s"));
  if (!flags.trace.empty()) write_trace(flags, model, prompt, decoded, expert_words(options));
  return 0;
}

}  // namespace

void add_generate_verb(CLI::App& program, Job& job) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App& verb = add_command(
      program, "generate", "Write text with a base, an adapter or a routed pool",
      "skein generate --base models/smollm2.gguf --chat --prompt 'Why is the sky blue?'\n"
      "skein generate --base models/smollm2.gguf --library pool --prompt-file question.txt --trace trace.jsonl");
  add_prompt_input(verb, flags->prompt);
  DecodeOptions& decode = flags->decode;
  verb.add_option("--max-new-tokens", decode.max_new_tokens, "Tokens to write at most")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--temperature", decode.temperature,
                  "0: the likeliest token each time; above: sampled, higher is wilder")
      ->type_name("T")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--top-p", decode.top_p, "Sampled: from the smallest set of tokens with this much probability")
      ->type_name("P")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb.add_option("--stop", decode.stop, "End before the first of these texts")->type_name("TEXT");
  verb.add_option("--trace", flags->trace, "Write which expert each token chose, as JSON lines")->type_name("FILE");
  add_overwrite_option(verb, flags->overwrite);
  add_model_flags(verb, flags->model);
  add_common_options(verb, flags->common);
  verb.callback([&job, flags] { job.run = [flags] { return generate(*flags); }; });
}

}  // namespace skein
