// skein manual: man pages, Markdown and shell completion, from the same description as --help. Used by the build.
#include <CLI/CLI.hpp>

#include <map>

#include "skein/base/concat.h"
#include "skein/base/result.h"
#include "skein/cli/common_options.h"
#include "skein/cli/help_page.h"
#include "skein/cli/result_output.h"
#include "skein/cli/verbs.h"
#include "skein/io/env.h"

namespace skein {
namespace {

using Pages = std::map<std::string, std::string>;  // file name -> content

// Calls on_command for each command that does something, depth first.
template <typename OnCommand>
void for_each_command(const CLI::App& command, const OnCommand& on_command) {
  const auto commands = visible_commands(command);
  if (commands.empty()) on_command(command);
  for (const CLI::App* sub : commands) for_each_command(*sub, on_command);
}

std::string joined_by(std::string words, char separator) {
  for (char& c : words) c = c == ' ' ? separator : c;
  return words;
}

// A leading dot or quote is a request to roff, a backslash an escape; a hyphen stays a hyphen.
std::string roff(const std::string& text) {
  std::string out;
  bool line_starts = true;
  for (const char c : text) {
    if (line_starts && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
    line_starts = c == '\n';
  }
  return out;
}

std::string man_page(const CLI::App& command) {
  const std::string name = joined_by(command_words(command), '-');
  std::string page = concat(".TH ", name, " 1\n.SH NAME\n", roff(name), " \\- ", roff(command.get_description()),
                            "\n.SH SYNOPSIS\n.B ", roff(command_words(command)), "\n");
  const auto options = visible_options(command);
  for (const CLI::Option* option : options) {
    if (option->get_required()) page += roff(option_words(*option)) + "\n";
  }
  page += "[options]\n.SH OPTIONS\n";
  for (const CLI::Option* option : options) {
    page += concat(".TP\n.B ", roff(option_words(*option)), "\n", roff(option_sentence(*option)), "\n");
  }
  if (!command.get_footer().empty()) page += concat(".SH NOTES\n.nf\n", roff(command.get_footer()), "\n.fi\n");
  return page;
}

Pages man_pages(const CLI::App& program) {
  Pages pages;
  std::string index = concat(".TH skein 1\n.SH NAME\nskein \\- ", roff(program.get_description()),
                             "\n.SH SYNOPSIS\n.B skein\nCOMMAND [options]\n.SH COMMANDS\n");
  for_each_command(program, [&](const CLI::App& command) {
    pages[joined_by(command_words(command), '-') + ".1"] = man_page(command);
    index += concat(".TP\n.B ", roff(joined_by(command_words(command), '-')), "(1)\n", roff(command.get_description()),
                    "\n");
  });
  pages["skein.1"] = index + ".SH NOTES\n.nf\n" + roff(program.get_footer()) + "\n.fi\n";
  return pages;
}

// A cell of a Markdown table.
std::string cell(const std::string& text) { return CLI::detail::find_and_replace(text, "|", "\\|"); }

Pages markdown_pages(const CLI::App& program) {
  std::string page =
      "# Commands\n\nWhat `skein COMMAND --help` prints, in one page. Made by `skein manual markdown`; do not "
      "edit.\n\n";
  page += program.get_footer() + "\n";
  for_each_command(program, [&](const CLI::App& command) {
    page += concat("\n## ", command_words(command), "\n\n", command.get_description(),
                   "\n\n| option | meaning |\n|---|---|\n");
    for (const CLI::Option* option : visible_options(command)) {
      page += concat("| `", cell(option_words(*option)), "` | ", cell(option_sentence(*option)), " |\n");
    }
    if (!command.get_footer().empty()) page += concat("\n```\n", command.get_footer(), "\n```\n");
  });
  return {{"commands.md", page}};
}

// Completes commands and option names; values are left to the shell's file names.
Pages bash_completion(const CLI::App& program) {
  std::string cases;
  const std::function<void(const CLI::App&)> add_case = [&](const CLI::App& command) {
    std::string words;
    for (const CLI::App* sub : visible_commands(command)) words += sub->get_name() + " ";
    for (const CLI::Option* option : visible_options(command)) {
      for (const std::string& name : option->get_lnames()) words += "--" + name + " ";
    }
    cases += concat("    '", command_words(command), "') words='", words, "--help' ;;\n");
    for (const CLI::App* sub : visible_commands(command)) add_case(*sub);
  };
  add_case(program);
  return {{"skein", concat("# Completion of skein's commands and options for bash.\n"
                           "_skein() {\n"
                           "  local command=skein word words=''\n"
                           "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
                           "    [[ $word == -* ]] && break\n"
                           "    command+=\" $word\"\n"
                           "  done\n"
                           "  case $command in\n",
                           cases,
                           "  esac\n"
                           "  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\")\n"
                           "}\n"
                           "complete -o default -F _skein skein\n")}};
}

struct ManualOptions {
  std::string format = "markdown";
  std::string out;
  bool overwrite = false;
};

int write_manual(const CLI::App& program, const ManualOptions& options) {
  const Pages pages = options.format == "man"    ? man_pages(program)
                      : options.format == "bash" ? bash_completion(program)
                                                 : markdown_pages(program);
  for (const auto& [name, page] : pages) {
    if (options.out.empty()) {
      print_text(page);
      continue;
    }
    Env& env = real_env();
    or_throw(env.make_folders(options.out));
    const std::string path = join_path(options.out, name);
    refuse_existing(path, options.overwrite);
    or_throw(write_text_atomically(env, path, page));
  }
  return 0;
}

}  // namespace

void add_manual_verb(CLI::App& program, Job& job) {
  auto options = std::make_shared<ManualOptions>();
  CLI::App& verb = add_command(program, "manual", "Print this help as man pages, Markdown or shell completion",
                               "skein manual man --out ~/.local/share/man/man1\n"
                               "skein manual bash --out ~/.local/share/bash-completion/completions");
  verb.add_option("format", options->format, "man, markdown or bash")
      ->check(CLI::IsMember({"man", "markdown", "bash"}))
      ->required();
  verb.add_option("--out", options->out, "Folder to write to; without it everything goes to stdout")->type_name("DIR");
  add_overwrite_option(verb, options->overwrite);
  verb.callback(
      [&program, &job, options] { job.run = [&program, options] { return write_manual(program, *options); }; });
}

}  // namespace skein
