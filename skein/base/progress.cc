#include "skein/base/progress.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <string_view>

#include "skein/base/log.h"

namespace skein {
namespace {

std::atomic<ProgressMode> chosen_mode{ProgressMode::kAuto};
std::atomic<bool> bar_on_screen{false};

ProgressMode resolved_mode() {
  const ProgressMode mode = chosen_mode.load();
  if (mode != ProgressMode::kAuto) return mode;
  return isatty(STDERR_FILENO) != 0 ? ProgressMode::kBar : ProgressMode::kPlain;
}

std::string short_number(double value) {
  char text[32];
  if (value >= 1e9) {
    std::snprintf(text, sizeof text, "%.2fG", value / 1e9);
  } else if (value >= 1e6) {
    std::snprintf(text, sizeof text, "%.2fM", value / 1e6);
  } else if (value >= 1e4) {
    std::snprintf(text, sizeof text, "%.1fk", value / 1e3);
  } else {
    std::snprintf(text, sizeof text, value < 10 && value != static_cast<int>(value) ? "%.1f" : "%.0f", value);
  }
  return text;
}

std::string clock_text(double seconds) {
  const long whole = std::lround(seconds);
  char text[32];
  if (whole >= 3600) {
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60, whole % 60);
  } else {
    std::snprintf(text, sizeof text, "%ld:%02ld", whole / 60, whole % 60);
  }
  return text;
}

void log_line(std::string_view prefix, std::string_view sentence) {
  if (bar_on_screen.load()) std::fputs("\r\x1b[K", stderr);
  std::fprintf(stderr, "skein: %.*s%.*s\n", static_cast<int>(prefix.size()), prefix.data(),
               static_cast<int>(sentence.size()), sentence.data());
}

}  // namespace

void set_progress_mode(ProgressMode mode) { chosen_mode.store(mode); }

void log_info(std::string_view sentence) { log_line("", sentence); }
void log_warning(std::string_view sentence) { log_line("warning: ", sentence); }

Progress::Progress(std::string what, std::int64_t total, std::string unit)
    : what_(std::move(what)), total_(std::max<std::int64_t>(total, 1)), unit_(std::move(unit)) {}

Progress::~Progress() { finish(); }

void Progress::update(std::int64_t done, const std::string& note) {
  done_ = done;
  note_ = note;
  const auto now = Clock::now();
  const auto mode = resolved_mode();
  if (mode == ProgressMode::kNone || now - started_ < std::chrono::seconds(2)) return;
  const auto pause = mode == ProgressMode::kBar ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10000);
  if (shown_ && now - drawn_ < pause) return;
  drawn_ = now;
  draw(false);
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  if (shown_) draw(true);
}

void Progress::draw(bool last) {
  const bool bar = resolved_mode() == ProgressMode::kBar;
  const double seconds = std::chrono::duration<double>(Clock::now() - started_).count();
  const double rate = seconds > 0 ? static_cast<double>(done_) / seconds : 0;
  std::string line = what_;
  if (bar) {
    constexpr int kCells = 24;
    const int full = static_cast<int>(std::min<std::int64_t>(kCells, kCells * done_ / total_));
    line += " [";
    for (int i = 0; i < kCells; ++i) line += i < full ? "#" : ".";
    line += "]";
  }
  line += " " + short_number(static_cast<double>(done_)) + "/" + short_number(static_cast<double>(total_)) + " " + unit_ +
          ", " + short_number(rate) + " " + unit_ + "/s, ";
  line += last || rate <= 0 ? clock_text(seconds) + " elapsed"
                            : clock_text(static_cast<double>(total_ - done_) / rate) + " left";
  if (!note_.empty()) line += ", " + note_;
  if (bar) {
    std::fprintf(stderr, "\r\x1b[K%s%s", line.c_str(), last ? "\n" : "");
    bar_on_screen.store(!last);
  } else {
    std::fprintf(stderr, "skein: %s\n", line.c_str());
  }
  std::fflush(stderr);
  shown_ = true;
}

}  // namespace skein
