#include "skein/cli/help_page.h"

#include <sstream>

#include "skein/cli/text_table.h"

namespace skein {
namespace {

constexpr std::size_t kNameWidth = 30;  // columns of option names; longer ones push their description to the next line

// `text` in lines of at most `width` bytes, each after `indent` blanks but the first.
std::string wrapped(const std::string& text, std::size_t width, std::size_t indent) {
  std::istringstream words(text);
  std::string out, word;
  std::size_t column = 0;
  while (words >> word) {
    if (column > 0 && column + 1 + word.size() > width) {
      out += "\n" + std::string(indent, ' ');
      column = 0;
    } else if (column > 0) {
      out += " ";
      ++column;
    }
    out += word;
    column += word.size();
  }
  return out;
}

std::string two_columns(const std::string& left, const std::string& right) {
  const std::size_t width = std::max<std::size_t>(terminal_width(), 60);
  std::string out = "  " + left;
  if (out.size() + 2 > kNameWidth) {
    out += "\n" + std::string(kNameWidth, ' ');
  } else {
    out.resize(kNameWidth, ' ');
  }
  return out + wrapped(right, width - kNameWidth, kNameWidth) + "\n";
}

}  // namespace

std::string option_words(const CLI::Option& option) {
  const bool positional = option.get_positional();
  std::string words = positional ? option.get_name(true, false) : option.get_name(false, true);
  if (!positional && option.get_type_size() != 0) {
    // CLI11 appends the names of validators after a colon; what is allowed stands in the description.
    const std::string type = option.get_type_name();
    if (!type.empty()) words += " " + type.substr(0, type.find(':'));
  }
  if (option.get_expected_max() == CLI::detail::expected_max_vector_size) words += "...";
  return words;
}

std::string option_sentence(const CLI::Option& option) {
  std::string sentence = option.get_description();
  if (option.get_required()) {
    sentence += " (required)";
  } else if (option.get_type_size() != 0 && !option.get_default_str().empty()) {
    sentence += " (default: " + option.get_default_str() + ")";
  }
  return sentence;
}

std::string command_words(const CLI::App& command) {
  return command.get_parent() == nullptr ? command.get_name()
                                         : command_words(*command.get_parent()) + " " + command.get_name();
}

std::vector<const CLI::Option*> visible_options(const CLI::App& command) {
  return command.get_options(
      [&](const CLI::Option* option) { return !option->get_group().empty() && option != command.get_help_ptr(); });
}

std::vector<const CLI::App*> visible_commands(const CLI::App& command) {
  return command.get_subcommands([](const CLI::App* sub) { return !sub->get_group().empty(); });
}

std::string HelpFormatter::make_option(const CLI::Option* option, bool /*is_positional*/) const {
  return two_columns(option_words(*option), option_sentence(*option));
}

std::string HelpFormatter::make_subcommand(const CLI::App* command) const {
  return two_columns(command->get_name(), command->get_description());
}

std::string HelpFormatter::make_usage(const CLI::App* command, std::string /*name*/) const {
  std::string usage = "\nUsage: " + command_words(*command);
  if (!visible_commands(*command).empty()) usage += " COMMAND";
  for (const CLI::Option* option : visible_options(*command)) {
    if (!option->get_required()) continue;
    usage += " " + option_words(*option);
  }
  return usage + (visible_options(*command).empty() ? "\n" : " [options]\n");
}

}  // namespace skein
