// Progress of long work, on stderr: what, done/total, rate with unit, time left.
//
// On a terminal one line is redrawn; elsewhere a plain line every ten seconds; nothing in mode kNone, and nothing for
// work that ends within two seconds. A Progress is used by one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace skein {

enum class ProgressMode { kAuto, kBar, kPlain, kNone };

// Set once by the command line (--progress auto|bar|plain|none). kAuto: a bar if stderr is a terminal.
void set_progress_mode(ProgressMode mode);

class Progress {
 public:
  // unit: what is counted, plural ("steps", "tokens", "examples").
  Progress(std::string what, std::int64_t total, std::string unit);
  ~Progress();  // ends the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // done: total so far; note: a few words shown at the end of the line (a loss, a name).
  void update(std::int64_t done, const std::string& note = "");
  void finish();

 private:
  void draw(bool last);

  using Clock = std::chrono::steady_clock;
  std::string what_;
  std::int64_t total_;
  std::string unit_;
  std::string note_;
  std::int64_t done_ = 0;
  Clock::time_point started_ = Clock::now();
  Clock::time_point drawn_{};
  bool finished_ = false;
  bool shown_ = false;
};

}  // namespace skein
