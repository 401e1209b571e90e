// Programs as a benchmark sees them: run to their end, or measured while they run.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
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

class Capture;  // an unnamed file that a child writes into

// A program that goes on until this object's end, which asks it to stop (SIGTERM) and waits; after ten seconds it is
// killed. Its stdin is empty, what it writes to stdout is lost.
class RunningChild {
 public:
  // Throws Failure.
  explicit RunningChild(const std::vector<std::string>& words, const Environment& extra = {});
  ~RunningChild();
  RunningChild(const RunningChild&) = delete;
  RunningChild& operator=(const RunningChild&) = delete;

  bool is_running();
  std::uint64_t resident_bytes() const;  // now; 0: it has ended
  std::string last_words() const;        // the end of its stderr

 private:
  std::unique_ptr<const Capture> err_;
  pid_t child_;
  bool has_ended_ = false;
};

// Where PATH has a program of that name; nothing if nowhere.
std::optional<std::string> find_program(const std::string& name);
// This program's own file.
std::string own_program();

}  // namespace skein
