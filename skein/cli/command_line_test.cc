#include "skein/cli/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <CLI/CLI.hpp>

#include "skein/cli/help_page.h"

namespace skein {
namespace {

using testing::HasSubstr;

// The sentence that a line is refused with.
std::string refusal(std::vector<const char*> words) {
  words.insert(words.begin(), "skein");
  try {
    run_command_line(static_cast<int>(words.size()), words.data());
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().kind, ErrorKind::kUsage) << failure.what();
    return failure.what();
  }
  ADD_FAILURE() << "the line was accepted";
  return "";
}

TEST(CommandLine, SuggestsTheNearestVerb) {
  EXPECT_EQ(refusal({"tokenzie"}), "unknown command 'tokenzie' (did you mean tokenize?); see skein --help");
  EXPECT_EQ(refusal({"library", "lst"}), "unknown command 'lst' (did you mean list?); see skein library --help");
}

TEST(CommandLine, AnUnknownOptionComesBeforeWhatFollowsFromIt) {
  // Without --base, which is required: its misspelling is the reason.
  EXPECT_EQ(refusal({"tokenize", "--bsae", "x"}),
            "unknown option --bsae of skein tokenize (did you mean --base?); see skein tokenize --help");
  EXPECT_THAT(refusal({"tokenize", "--bsae=x"}), HasSubstr("unknown option --bsae of"));
}

TEST(CommandLine, NamesAMissingOptionAndAMissingCommand) {
  EXPECT_THAT(refusal({"tokenize"}), HasSubstr("--base is required"));
  EXPECT_THAT(refusal({"library"}), HasSubstr("needs a command: one of create, add, list, inspect, remove, check"));
}

TEST(CommandLine, RefusesAValueThatIsNone) {
  EXPECT_THAT(refusal({"tokenize", "--base", "x", "--threads", "many"}), HasSubstr("--threads"));
  EXPECT_THAT(refusal({"tokenize", "--base", "x", "--progress", "loud"}), HasSubstr("--progress"));
}

// Walks every command: help must teach.
void check_help(const CLI::App& command) {
  for (const CLI::App* sub : visible_commands(command)) check_help(*sub);
  const bool is_missing = command.get_description().find("not in this build") != std::string::npos;
  if (!visible_commands(command).empty() || is_missing) return;
  EXPECT_THAT(command.get_footer(), HasSubstr(command_words(command))) << command_words(command) << " shows no example";
  EXPECT_FALSE(command.get_description().empty()) << command_words(command);
  for (const CLI::Option* option : visible_options(command)) {
    EXPECT_FALSE(option->get_description().empty())
        << command_words(command) << " " << option_words(*option) << " says nothing";
    const bool takes_a_value = option->get_expected_min() > 0 && !option->get_positional();
    EXPECT_TRUE(!takes_a_value || option_words(*option).find(' ') != std::string::npos)
        << command_words(command) << " " << option_words(*option) << " does not say what it takes";
  }
}

TEST(CommandLine, EveryCommandHasAnExampleAndEveryOptionASentence) {
  Job job;
  check_help(*make_command_line(job));
}

TEST(CommandLine, HelpShowsDefaultsAndWrapsAtTheScreen) {
  Job job;
  const auto program = make_command_line(job);
  const std::string help = program->get_subcommand("library")->get_subcommand("check")->help();
  EXPECT_THAT(help, HasSubstr("--limit N                   With --capture: examples per file (default: 100)"));
  EXPECT_THAT(help, HasSubstr("Usage: skein library check LIB [options]"));
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
}

}  // namespace
}  // namespace skein
