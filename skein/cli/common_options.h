// The options that every command shares, declared once.
#pragma once

#include <cstdint>
#include <string>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace skein {

struct CommonOptions {
  int num_threads = 0;  // 0: the cores this process may use
  std::uint64_t seed = 0;
  std::string progress = "auto";
  bool json = false;
  bool no_sync = false;
};

// Adds a subcommand whose help ends with `example` (one or more command lines, "\n" between them).
CLI::App& add_command(CLI::App& parent, const std::string& name, const std::string& summary,
                      const std::string& example);
// Adds the options to a command. Remembers `options`: it must live as long as the program.
void add_common_options(CLI::App& command, CommonOptions& options);
// Puts them to work: threads, progress, syncing. Call first in a job.
void apply_common_options(const CommonOptions& options);

// --overwrite, for commands that write files.
void add_overwrite_option(CLI::App& command, bool& overwrite);
// Throws Failure if `path` (may be empty: no output asked for) exists. Call before the work, which may take hours.
void refuse_existing(const std::string& path, bool overwrite);

}  // namespace skein
