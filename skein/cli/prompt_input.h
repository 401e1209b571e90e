// --prompt and --prompt-file, and how they become tokens. Shared by generate and trace.
#pragma once

#include <string>
#include <vector>

#include "skein/cli/common_options.h"
#include "skein/infer/loaded_model.h"
#include "skein/infer/prompt.h"

namespace skein {

struct PromptFlags {
  std::string prompt;
  std::string prompt_file;
  PromptOptions form{.separator = ""};
};

void add_prompt_input(CLI::App& command, PromptFlags& flags);
// Throws Failure: no prompt, an empty one, or one that leaves no room for a token in the base's context.
std::vector<TokenId> prompt_tokens(PromptFlags& flags, const LoadedModel& model);

}  // namespace skein
