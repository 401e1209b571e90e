// A program run to its end, as a benchmark sees it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "skein/base/result.h"

namespace skein {

struct ChildRun {
  double seconds = 0;            // from its start to its end
  std::uint64_t peak_bytes = 0;  // the most resident memory it had, mapped pages included (VmHWM)
  std::string out;               // what it wrote to stdout
};

using Environment = std::vector<std::pair<std::string, std::string>>;

// words: the program (looked up in PATH where it names no folder) and its arguments; extra: set for the child on top of
// this process's environment. Its stdin is empty. Anything but exit code 0 is an error with the end of its stderr.
Result<ChildRun> run_child(const std::vector<std::string>& words, const Environment& extra = {});

// Where PATH has a program of that name; nothing if nowhere.
std::optional<std::string> find_program(const std::string& name);
// This program's own file.
std::string own_program();

}  // namespace skein
