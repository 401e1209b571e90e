#include "skein/cli/option_file.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "skein/base/concat.h"
#include "skein/base/nearest_word.h"
#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/io/yaml.h"

namespace skein {
namespace {

std::vector<std::string> values_of(const YamlNode& node, const std::string& where) {
  if (node.is_scalar()) return {node.text};
  std::vector<std::string> values;
  for (const YamlNode& item : node.items) {
    if (!item.is_scalar()) {
      throw Failure(
          {concat(yaml_place(where, item.line), " has ", yaml_description(item), " in a list; expected words"),
           ErrorKind::kUsage});
    }
    values.push_back(item.text);
  }
  if (!node.is_list()) {
    throw Failure(
        {concat(yaml_place(where, node.line), " has ", yaml_description(node), "; expected a value or a list"),
         ErrorKind::kUsage});
  }
  return values;
}

void take(CLI::App& command, const YamlMember& member, const std::string& path) {
  const std::string place = yaml_place(path, member.key_line);
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back(name);
  }
  if (std::find(names.begin(), names.end(), member.key) == names.end()) {
    const auto nearest = nearest_word(member.key, names);
    throw Failure({concat(place, " has the unknown option '", printable(member.key), "'",
                          nearest ? concat(" (did you mean ", *nearest, "?)") : ""),
                   ErrorKind::kUsage});
  }
  CLI::Option& option = *command.get_option("--" + member.key);
  if (option.count() > 0 || member.value.is_null()) return;
  for (const std::string& value : values_of(member.value, path)) option.add_result(value);
  try {
    option.run_callback();
  } catch (const CLI::Error& error) {
    throw Failure({concat(place, ": ", printable(error.what(), 300)), ErrorKind::kUsage});
  }
}

}  // namespace

void take_options_from_environment(CLI::App& command, const std::string& prefix) {
  for (CLI::Option* option : command.get_options()) {
    if (option == command.get_help_ptr() || option->get_lnames().empty()) continue;
    std::string name = prefix + "_" + option->get_lnames().front();
    for (char& c : name) c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    option->envname(name);
  }
}

void take_options_from_file(CLI::App& command, const std::string& path) {
  const std::string text = or_throw(read_text_file(real_env(), path, 1 << 20));
  const std::vector<YamlNode> documents = or_throw(parse_yaml(text, path));
  if (documents.empty()) return;
  if (documents.size() > 1 || !documents.front().is_mapping()) {
    throw Failure({concat(path, " is no single mapping of option names to values"), ErrorKind::kUsage});
  }
  for (const YamlMember& member : documents.front().members) take(command, member, path);
}

}  // namespace skein
