// Options of a command from a file and from the environment, for programs that run as services.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace skein {

// Lets every option be given as an environment variable too: --max-body as PREFIX_MAX_BODY.
void take_options_from_environment(CLI::App& command, const std::string& prefix);

// A .yml mapping of option names (without the dashes) to values, lists and true or false. What the command line or the
// environment gave stays. Call when the command line has been parsed. Throws Failure (kUsage), naming the line, on
// unknown names and on values that the option refuses.
void take_options_from_file(CLI::App& command, const std::string& path);

}  // namespace skein
