// How help is laid out, on the terminal and in the manual, from one description of the commands.
#pragma once

#include <CLI/CLI.hpp>

#include <string>
#include <vector>

namespace skein {

// Options with wrapped descriptions and defaults in words.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
  std::string make_usage(const CLI::App* command, std::string name) const override;
  std::string make_subcommand(const CLI::App* command) const override;
};

// "--top-k N", "LIB": how an option is written.
std::string option_words(const CLI::Option& option);
// Its description with the default and whether it must be given.
std::string option_sentence(const CLI::Option& option);
// "skein train expert": the words that call a command.
std::string command_words(const CLI::App& command);
// A command's own options, in order, without --help.
std::vector<const CLI::Option*> visible_options(const CLI::App& command);
// Subcommands that help shows.
std::vector<const CLI::App*> visible_commands(const CLI::App& command);

}  // namespace skein
