#include "skein/cli/prompt_input.h"

#include <CLI/CLI.hpp>

#include <iostream>
#include <iterator>

#include "skein/base/concat.h"
#include "skein/cli/prompt_flags.h"

namespace skein {

void add_prompt_input(CLI::App& command, PromptFlags& flags) {
  CLI::Option* prompt = command.add_option("--prompt", flags.prompt, "The text to go on from")->type_name("TEXT");
  command.add_option("--prompt-file", flags.prompt_file, "Read it from a file; - is standard input")
      ->type_name("FILE")
      ->excludes(prompt);
  add_prompt_form_flags(command, flags.form);
}

std::shared_ptr<const SequenceHint> prompt_hint(const PromptFlags& flags, const LoadedModel& model) {
  return model.hint_of(Example{.input = flags.prompt});
}

std::vector<TokenId> prompt_tokens(PromptFlags& flags, const LoadedModel& model) {
  std::string& text = flags.prompt;
  if (flags.prompt_file == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else if (!flags.prompt_file.empty()) {
    text = or_throw(read_text_file(real_env(), flags.prompt_file));
  }
  if (text.empty()) {
    throw Failure({flags.prompt_file.empty() ? "there is no prompt; give --prompt TEXT or --prompt-file FILE"
                                             : concat(flags.prompt_file, " is empty; expected the text of a prompt"),
                   ErrorKind::kUsage});
  }
  unescape_separator(flags.form);
  return encode_prompt(text, *model.tokenizer, model.base.config, flags.form);
}

}  // namespace skein
