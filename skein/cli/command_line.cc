#include "skein/cli/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string_view>

#include "skein/base/concat.h"
#include "skein/base/nearest_word.h"
#include "skein/cli/build_facts.h"
#include "skein/cli/help_page.h"
#include "skein/cli/result_output.h"

namespace skein {
namespace {

// The verbs, in the order help shows them.
constexpr void (*kVerbs[])(CLI::App&, Job&) = {
    add_generate_verb, add_serve_verb,    add_trace_verb,   add_eval_verb,   add_compare_verb, add_train_verb,
    add_library_verb,  add_gates_verb,    add_distill_verb, add_merge_verb,  add_extract_verb, add_convert_verb,
    add_logits_verb,   add_tokenize_verb, add_bench_verb,   add_manual_verb,
};

constexpr std::string_view kLongWork[] = {"train", "eval", "compare", "gates", "distill", "serve"};

// The command that was typed, as far as it was understood.
const CLI::App& typed_command(const CLI::App& program) {
  const CLI::App* command = &program;
  while (!command->get_subcommands().empty()) command = command->get_subcommands().front();
  return *command;
}

std::string suggestion(const std::string& typed, const std::vector<std::string>& words) {
  const auto nearest = nearest_word(typed, words);
  return nearest ? concat(" (did you mean ", *nearest, "?)") : std::string();
}

std::vector<std::string> names_of(const std::vector<const CLI::App*>& commands) {
  std::vector<std::string> names;
  for (const CLI::App* command : commands) names.push_back(command->get_name());
  return names;
}

// What is wrong with a line that CLI11 refuses: a word it does not know comes first, since what else it complains about
// (a missing option) often follows from that.
std::string usage_error(const CLI::App& program, const CLI::ParseError& error) {
  const CLI::App& command = typed_command(program);
  const std::string help = concat("; see ", command_words(command), " --help");
  const auto commands = visible_commands(command);
  for (const std::string& word : command.remaining()) {
    if (word.size() > 1 && word[0] == '-') {
      std::vector<std::string> names;
      for (const CLI::Option* option : visible_options(command)) {
        for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
      }
      const std::string name = word.substr(0, word.find('='));
      return concat("unknown option ", printable(name), " of ", command_words(command), suggestion(name, names), help);
    }
    if (!commands.empty()) {
      return concat("unknown command '", printable(word), "'", suggestion(word, names_of(commands)), help);
    }
    return concat(command_words(command), ": unexpected argument '", printable(word), "'", help);
  }
  if (!commands.empty()) {
    std::string list;
    for (const std::string& name : names_of(commands)) list += (list.empty() ? "" : ", ") + name;
    return concat(command_words(command), " needs a command: one of ", list, help);
  }
  return concat(command_words(command), ": ", printable(error.what(), 400), help);
}

}  // namespace

bool is_long_work(const std::string& verb) {
  return std::find(std::begin(kLongWork), std::end(kLongWork), verb) != std::end(kLongWork);
}

std::unique_ptr<CLI::App> make_command_line(Job& job) {
  auto program = std::make_unique<CLI::App>(
      "Routes among, trains and pools specialised fine-tunes of one language model.", "skein");
  const auto formatter = std::make_shared<HelpFormatter>();
  formatter->label("Positionals", "Arguments");
  program->formatter(formatter);
  program->set_version_flag("--version", build_facts, "Print what this build is");
  program->set_help_flag("-h,--help", "Print help");
  program->option_defaults()->always_capture_default(false);
  program->require_subcommand(1);
  for (const auto add_verb : kVerbs) add_verb(*program, job);
  // Last: commands inherit what is set before they are added.
  program->footer(
      "BASE is a Hugging Face model folder or one .gguf file; ADAPTER a PEFT folder; LIB a library folder;\n"
      "DATA .jsonl or .jsonl.gz files. `skein COMMAND --help` shows every option with its default and an example.\n"
      "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a check found a difference, 130 interrupted.");
  return program;
}

int run_command_line(int argc, const char* const* argv) {
  Job job;
  job.typed.assign(argv, argv + argc);
  const std::unique_ptr<CLI::App> program = make_command_line(job);
  if (argc < 2) {
    print_text(program->help());
    return 2;
  }
  try {
    program->parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    print_text(typed_command(*program).help());
    return 0;
  } catch (const CLI::CallForVersion& version) {
    print_text(version.what());
    return 0;
  } catch (const CLI::ParseError& error) {
    throw Failure({usage_error(*program, error), ErrorKind::kUsage});
  }
  return job.run();
}

}  // namespace skein
