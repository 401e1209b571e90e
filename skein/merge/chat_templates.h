// Chat templates a recipe can name: `chat_template: chatml`.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace skein::merge {

// "alpaca", "chatml", "exaone", "llama3", "mistral".
std::vector<std::string_view> chat_template_names();
// Jinja source; nothing for other names. All take messages of the roles system, user and assistant, the system message
// first if there is one.
std::optional<std::string> chat_template_of_name(std::string_view name);

}  // namespace skein::merge
