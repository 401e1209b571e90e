// The options that say how text becomes tokens. Shared by the verbs that read examples or prompts.
#pragma once

#include "skein/cli/common_options.h"
#include "skein/infer/prompt.h"

namespace skein {

// --separator and --chat; the defaults shown are those of `options`.
void add_prompt_form_flags(CLI::App& command, PromptOptions& options);
// The above, --max-input and --max-target.
void add_prompt_flags(CLI::App& command, PromptOptions& options);
// "\n" and "\t" as typed, turned into the characters they mean.
std::string unescaped(std::string text);
// The same of --separator. Call first in a job.
void unescape_separator(PromptOptions& options);

}  // namespace skein
