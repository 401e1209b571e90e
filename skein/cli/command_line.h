// From argv to a verb's job: the table of verbs, --version, usage errors in words.
#pragma once

#include <memory>
#include <string>

#include "skein/base/result.h"
#include "skein/cli/verbs.h"

namespace skein {

// The whole command line, described. `job` lives as long as the result.
std::unique_ptr<CLI::App> make_command_line(Job& job);
// Whether a verb keeps all cores busy for minutes (main.cc then limits OpenMP's spinning).
bool is_long_work(const std::string& verb);
// Parses and runs; the exit code. Throws Failure (kUsage for a line that cannot be understood).
int run_command_line(int argc, const char* const* argv);

}  // namespace skein
