// skein library: pools of experts.
#include <CLI/CLI.hpp>

#include <set>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/base/result.h"
#include "skein/cli/capture_check.h"
#include "skein/cli/common_options.h"
#include "skein/cli/result_output.h"
#include "skein/cli/text_table.h"
#include "skein/cli/verbs.h"
#include "skein/io/safetensors.h"
#include "skein/spec/expert_folder.h"
#include "skein/spec/library.h"

namespace skein {
namespace {

struct LibraryOptions {
  std::string library;
  std::string base;
  std::vector<std::string> experts;  // folders to add, names to remove or inspect
  std::string name;
  bool allow_other_base = false;
  bool capture = false;
  CaptureOptions capture_options;
  CommonOptions common;
};

BaseModel base_of(const LibraryOptions& options, const Library& library) {
  if (!options.base.empty()) return or_throw(open_base_model(real_env(), options.base));
  if (!real_env().exists(library.base_hint)) {
    throw Failure({concat("library ", options.library, " was created from ", printable(library.base_hint),
                          ", which is not there; name the base with --base"),
                   ErrorKind::kUsage});
  }
  return or_throw(open_base_model(real_env(), library.base_hint));
}

int create(const LibraryOptions& options) {
  apply_common_options(options.common);
  const BaseModel base = or_throw(open_base_model(real_env(), options.base));
  const Library library = or_throw(create_library(real_env(), options.library, base));
  if (options.common.json) {
    print_json({{"library", options.library}, {"base_fingerprint", library.base_fingerprint}});
  }
  log_info(concat("created ", options.library, " for base ", library.base_fingerprint, "; next: skein library add ",
                  options.library, " EXPERT"));
  return 0;
}

int add(const LibraryOptions& options) {
  apply_common_options(options.common);
  if (!options.name.empty() && options.experts.size() > 1) {
    throw Failure({"--name names one expert; give one folder, or leave --name out", ErrorKind::kUsage});
  }
  Library library = or_throw(open_library(real_env(), options.library));
  const BaseModel base = base_of(options, library);
  for (const std::string& folder : options.experts) {
    or_throw(add_expert(real_env(), library, base, folder,
                        {.name = options.name, .allow_other_base = options.allow_other_base}));
    log_info(concat("added ", library.experts.back().name, " to ", options.library, ", now ", library.experts.size(),
                    library.experts.size() == 1 ? " expert" : " experts"));
  }
  if (options.common.json) print_json({{"library", options.library}, {"num_experts", library.experts.size()}});
  return 0;
}

int remove(const LibraryOptions& options) {
  apply_common_options(options.common);
  Library library = or_throw(open_library(real_env(), options.library));
  for (const std::string& name : options.experts) {
    or_throw(remove_expert(real_env(), library, name));
    log_info(concat("removed ", printable(name), " from ", options.library));
  }
  if (options.common.json) print_json({{"library", options.library}, {"num_experts", library.experts.size()}});
  return 0;
}

// What one expert is, read from its own files without the base.
struct ExpertFacts {
  AdapterConfig config;
  std::int64_t num_modules = 0;
  std::int64_t num_parameters = 0;
  std::vector<std::string> gates;
  Json card;
};

ExpertFacts facts_of(const std::string& folder) {
  Env& env = real_env();
  const std::string config_path = join_path(folder, "adapter_config.json");
  ExpertFacts facts;
  facts.config = or_throw(adapter_config_from_json(or_throw(read_json_file(env, config_path)), config_path));
  const auto tensors =
      or_throw(open_safetensors(env, join_path(folder, "adapter_model.safetensors"), adapter_limits()));
  std::set<std::string> modules;
  for (const TensorInfo& tensor : tensors->tensors()) {
    modules.insert(tensor.name.substr(0, tensor.name.find(".lora_")));
    facts.num_parameters += checked_numel(tensor.shape).value_or(0);
  }
  facts.num_modules = static_cast<std::int64_t>(modules.size());
  facts.gates = gate_kinds(env, folder);
  facts.card = or_throw(read_card(env, folder));
  return facts;
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out.empty() ? "-" : out;
}

// The tasks an expert was trained on, as its card names them.
std::vector<std::string> tasks_of(const Json& card) {
  const Json tasks = card.value("tasks", Json::array());
  std::vector<std::string> names;
  for (const Json& task : tasks) names.push_back(task.is_string() ? task.get<std::string>() : json_line(task));
  return names;
}

int list(const LibraryOptions& options) {
  apply_common_options(options.common);
  const Library library = or_throw(open_library(real_env(), options.library));
  using enum TextTable::Align;
  TextTable table({{"expert", kLeft}, {"rank"}, {"modules"}, {"parameters"}, {"gates", kLeft}, {"tasks", kLeft}});
  Json lines = Json::array();
  for (const LibraryEntry& entry : library.experts) {
    const ExpertFacts facts = facts_of(library.folder_of(entry.name));
    const bool is_lora = facts.config.kind == AdapterKind::kLora;
    table.add_row({printable(entry.name), is_lora ? std::to_string(facts.config.rank) : "(IA)3",
                   grouped(facts.num_modules), grouped(facts.num_parameters), joined(facts.gates),
                   printable(joined(tasks_of(facts.card)), 40)});
    lines.push_back({{"name", entry.name},
                     {"kind", is_lora ? "lora" : "ia3"},
                     {"rank", is_lora ? facts.config.rank : 0},
                     {"modules", facts.num_modules},
                     {"parameters", facts.num_parameters},
                     {"gates", facts.gates},
                     {"tasks", tasks_of(facts.card)}});
  }
  options.common.json ? print_json(lines) : print_text(table.render(is_styled(stdout)));
  return 0;
}

Json inspected(const Library& library, const LibraryEntry& entry) {
  const ExpertFacts facts = facts_of(library.folder_of(entry.name));
  Json files = Json::object();
  for (const auto& [file, digest] : entry.digests) files[file] = digest;
  return {{"name", entry.name},
          {"files", files},
          {"adapter_config", adapter_config_to_json(facts.config)},
          {"modules", facts.num_modules},
          {"parameters", facts.num_parameters},
          {"gates", facts.gates},
          {"card", facts.card}};
}

int inspect(const LibraryOptions& options) {
  apply_common_options(options.common);
  const Library library = or_throw(open_library(real_env(), options.library));
  Json experts = Json::array();
  for (const LibraryEntry& entry : library.experts) {
    const auto& wanted = options.experts;
    if (wanted.empty() || std::find(wanted.begin(), wanted.end(), entry.name) != wanted.end())
      experts.push_back(inspected(library, entry));
  }
  if (experts.size() < options.experts.size()) {
    std::vector<std::string> names;
    for (const LibraryEntry& entry : library.experts) names.push_back(entry.name);
    throw Failure({concat("library ", options.library, " does not hold all of ", printable(joined(options.experts)),
                          "; it holds ", printable(joined(names), 400)),
                   ErrorKind::kUsage});
  }
  print_json({{"library", library.path},
              {"format_version", library.format_version},
              {"base_fingerprint", library.base_fingerprint},
              {"base_hint", library.base_hint},
              {"experts", experts}});
  return 0;
}

int check(const LibraryOptions& options) {
  apply_common_options(options.common);
  if (options.capture) {
    CaptureOptions capture = options.capture_options;
    capture.library = options.library;
    capture.base = options.base;
    capture.common = options.common;
    return capture_check(capture);
  }
  const Library library = or_throw(open_library(real_env(), options.library));
  const std::vector<std::string> differences = or_throw(check_library(real_env(), library));
  if (options.common.json) {
    print_json({{"library", options.library}, {"experts", library.experts.size()}, {"differences", differences}});
  } else {
    for (const std::string& difference : differences) print_text(difference + "\n");
    if (differences.empty()) print_text(concat(library.experts.size(), " experts, every file as recorded\n"));
  }
  return differences.empty() ? 0 : 3;
}

CLI::App& add_library_command(CLI::App& verb, Job& job, int (*run)(const LibraryOptions&), const std::string& name,
                              const std::string& summary, const std::string& example,
                              const std::shared_ptr<LibraryOptions>& options) {
  CLI::App& command = add_command(verb, name, summary, example);
  command.add_option("LIB", options->library, "Library folder")->required();
  command.callback([&job, run, options] { job.run = [run, options] { return run(*options); }; });
  return command;
}

}  // namespace

void add_library_verb(CLI::App& program, Job& job) {
  CLI::App& verb = add_command(program, "library", "Pool experts of one base in a folder", "");
  verb.require_subcommand(1);
  const auto base_help = "The base; without it the path the library was created from";

  auto options = std::make_shared<LibraryOptions>();
  CLI::App& create_command = add_library_command(verb, job, create, "create", "Make an empty library for a base",
                                                 "skein library create pool --base models/smollm2.gguf", options);
  create_command.add_option("--base", options->base, "The base whose experts it will hold")
      ->type_name("BASE")
      ->required();
  add_common_options(create_command, options->common);

  options = std::make_shared<LibraryOptions>();
  CLI::App& add_to =
      add_library_command(verb, job, add, "add", "Copy experts in (PEFT LoRA or (IA)3 folders of its base)",
                          "skein library add pool experts/sentiment experts/questions", options);
  add_to.add_option("EXPERT", options->experts, "Expert folders")->required();
  add_to.add_option("--name", options->name, "Name in the library (default: the folder's own name)")->type_name("NAME");
  add_to.add_option("--base", options->base, base_help)->type_name("BASE");
  add_to.add_flag("--allow-other-base", options->allow_other_base, "Add it although its card names another base");
  add_common_options(add_to, options->common);

  options = std::make_shared<LibraryOptions>();
  CLI::App& list_command =
      add_library_command(verb, job, list, "list", "Table of its experts", "skein library list pool", options);
  add_common_options(list_command, options->common);

  options = std::make_shared<LibraryOptions>();
  CLI::App& inspect_command = add_library_command(verb, job, inspect, "inspect", "All that is recorded, as JSON",
                                                  "skein library inspect pool sentiment", options);
  inspect_command.add_option("NAME", options->experts, "Experts; without names all");
  add_common_options(inspect_command, options->common);

  options = std::make_shared<LibraryOptions>();
  CLI::App& remove_command =
      add_library_command(verb, job, remove, "remove", "Take experts out; no other's files are touched",
                          "skein library remove pool sentiment", options);
  remove_command.add_option("NAME", options->experts, "Experts")->required();
  add_common_options(remove_command, options->common);

  options = std::make_shared<LibraryOptions>();
  CLI::App& check_command = add_library_command(
      verb, job, check, "check", "Compare every file with its recorded digest; exit code 3 on a difference",
      "skein library check pool\nskein library check pool --capture --data valid.jsonl", options);
  CLI::Option* capture = check_command.add_flag(
      "--capture", options->capture, "Run the model instead and name experts that grab tokens beyond their share");
  check_command.add_option("--data", options->capture_options.data, "With --capture: DATA to run")
      ->type_name("DATA")
      ->needs(capture);
  check_command.add_option("--limit", options->capture_options.limit, "With --capture: examples per file")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->needs(capture);
  check_command
      .add_option("--factor", options->capture_options.factor,
                  "With --capture: a share above FACTOR / experts is too much")
      ->type_name("FACTOR")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->needs(capture);
  check_command
      .add_option("--size-factor", options->capture_options.size_factor,
                  "With --capture: an update or gates longer than FACTOR times the pool's median are too much")
      ->type_name("FACTOR")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->needs(capture);
  check_command.add_option("--router", options->capture_options.router, "With --capture: the router to follow")
      ->type_name("ROUTER")
      ->capture_default_str()
      ->needs(capture);
  check_command.add_option("--base", options->base, base_help)->type_name("BASE");
  add_common_options(check_command, options->common);
}

}  // namespace skein
