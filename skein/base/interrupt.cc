#include "skein/base/interrupt.h"

#include <csignal>
#include <cstring>

#include <unistd.h>

namespace skein {
namespace {

volatile std::sig_atomic_t signals_seen = 0;

void on_signal(int) {
  signals_seen = signals_seen + 1;
  if (signals_seen > 1) _exit(130);
  static const char kText[] = "\nskein: stopping at the next safe point; once more to stop at once\n";
  [[maybe_unused]] const auto ignored = write(STDERR_FILENO, kText, sizeof kText - 1);
}

}  // namespace

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return signals_seen > 0; }

}  // namespace skein
