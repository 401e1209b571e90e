#include "skein/cli/common_options.h"

#include <CLI/CLI.hpp>

#include "skein/base/concat.h"
#include "skein/base/progress.h"
#include "skein/base/result.h"
#include "skein/base/thread_pool.h"
#include "skein/io/env.h"

namespace skein {

CLI::App& add_command(CLI::App& parent, const std::string& name, const std::string& summary,
                      const std::string& example) {
  CLI::App& command = *parent.add_subcommand(name, summary);
  command.group("Commands");
  if (!example.empty()) command.footer("Example:\n  " + CLI::detail::find_and_replace(example, "\n", "\n  "));
  return command;
}

void add_common_options(CLI::App& command, CommonOptions& options) {
  const std::string group = "Common options";
  command.add_option("--threads", options.num_threads, "Threads to compute with; 0: the cores this process may use")
      ->type_name("N")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str()
      ->group(group);
  command.add_option("--seed", options.seed, "Seed of everything random")
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--progress", options.progress,
                  "Progress on stderr: auto (a bar on a terminal, else plain), bar, "
                  "plain (a line every ten seconds) or none")
      ->type_name("MODE")
      ->check(CLI::IsMember({"auto", "bar", "plain", "none"}))
      ->capture_default_str()
      ->group(group);
  command.add_flag("--json", options.json, "Print the result as one JSON document (or JSON lines)")->group(group);
  command.add_flag("--no-sync", options.no_sync, "Do not wait for the disk before a file gets its final name")
      ->group(group);
}

void apply_common_options(const CommonOptions& options) {
  static const std::pair<const char*, ProgressMode> kModes[] = {{"auto", ProgressMode::kAuto},
                                                                {"bar", ProgressMode::kBar},
                                                                {"plain", ProgressMode::kPlain},
                                                                {"none", ProgressMode::kNone}};
  for (const auto& [name, mode] : kModes) {
    if (options.progress == name) set_progress_mode(mode);
  }
  set_sync_writes(!options.no_sync);
  set_num_threads(options.num_threads > 0 ? options.num_threads : available_cores());
}

void add_overwrite_option(CLI::App& command, bool& overwrite) {
  command.add_flag("--overwrite", overwrite,
                   "Replace an output that exists (the old one stays until the new one is complete)");
}

void refuse_existing(const std::string& path, bool overwrite) {
  if (!path.empty() && !overwrite && real_env().exists(path)) {
    throw Failure({concat(path, " exists already; give --overwrite to replace it")});
  }
}

}  // namespace skein
