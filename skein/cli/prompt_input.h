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
// What the router is told of the prompt (LoadedModel::hint_of). After prompt_tokens, which reads a file into `prompt`.
std::shared_ptr<const SequenceHint> prompt_hint(const PromptFlags& flags, const LoadedModel& model);
// Never cut. Throws Failure: no prompt, or an empty one.
std::vector<TokenId> prompt_tokens(PromptFlags& flags, const LoadedModel& model);

}  // namespace skein
