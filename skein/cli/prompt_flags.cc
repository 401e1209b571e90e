#include "skein/cli/prompt_flags.h"

#include <CLI/CLI.hpp>

#include "skein/base/concat.h"

namespace skein {

namespace {
constexpr char kGroup[] = "Prompt";
}

void add_prompt_form_flags(CLI::App& command, PromptOptions& options) {
  options.separator = CLI::detail::find_and_replace(options.separator, "\n", "\\n");
  command
      .add_option("--separator", options.separator,
                  concat("Between input and target of a decoder-only base; \\n and \\t are understood",
                         options.separator.empty() ? "; without it nothing" : ""))
      ->type_name("TEXT")
      ->capture_default_str()
      ->group(kGroup);
  command.add_flag("--chat", options.chat, "Wrap the input in the model's chat template instead")->group(kGroup);
}

void add_prompt_flags(CLI::App& command, PromptOptions& options) {
  add_prompt_form_flags(command, options);
  command.add_option("--max-input", options.max_input, "Tokens; longer inputs lose their end")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(kGroup);
  command.add_option("--max-target", options.max_target, "Tokens; longer targets lose their end")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(kGroup);
}

std::string unescaped(std::string text) {
  text = CLI::detail::find_and_replace(text, "\\n", "\n");
  return CLI::detail::find_and_replace(text, "\\t", "\t");
}

void unescape_separator(PromptOptions& options) { options.separator = unescaped(options.separator); }

}  // namespace skein
