#include "skein/cli/prompt_input.h"

#include <CLI/CLI.hpp>

#include <iostream>
#include <iterator>
#include <limits>

#include "skein/base/concat.h"
#include "skein/cli/prompt_flags.h"

namespace skein {

void add_prompt_input(CLI::App& command, PromptFlags& flags) {
  CLI::Option* prompt = command.add_option("--prompt", flags.prompt, "The text to go on from")->type_name("TEXT");
  command.add_option("--prompt-file", flags.prompt_file, "Read it from a file; - is standard input")->type_name("FILE")->excludes(prompt);
  add_prompt_form_flags(command, flags.form);
}

std::vector<TokenId> prompt_tokens(PromptFlags& flags, const LoadedModel& model) {
  std::string text = flags.prompt;
  if (flags.prompt_file == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else if (!flags.prompt_file.empty()) {
    text = or_throw(read_text_file(real_env(), flags.prompt_file));
  }
  if (text.empty()) {
    throw Failure({flags.prompt_file.empty() ? "there is no prompt; give --prompt TEXT or --prompt-file FILE"
                                             : concat(flags.prompt_file, " is empty; expected the text of a prompt"), ErrorKind::kUsage});
  }
  unescape_separator(flags.form);
  flags.form.max_input = std::numeric_limits<std::int64_t>::max();  // never cut in silence
  std::vector<TokenId> tokens = encode_prompt(text, *model.tokenizer, model.base.config, flags.form);
  const BackboneConfig& config = model.base.config;
  const auto length = static_cast<std::int64_t>(tokens.size());
  if (!config.is_encoder_decoder() && length >= config.max_positions) {
    throw Failure({concat("the prompt has ", length, " tokens; ", model.base.path, " reads ", config.max_positions,
                          " with the answer included, so the prompt must be shorter")});
  }
  return tokens;
}

}  // namespace skein
