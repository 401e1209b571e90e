// The program's door: the table of verbs, and the one place where errors become a sentence and an exit code.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "skein/base/interrupt.h"
#include "skein/cli/command_line.h"

namespace {

int exit_code(skein::ErrorKind kind) {
  switch (kind) {
    case skein::ErrorKind::kUsage:
      return 2;
    case skein::ErrorKind::kDifference:
      return 3;
    case skein::ErrorKind::kInterrupted:
      return 130;
    case skein::ErrorKind::kFailed:
      break;
  }
  return 1;
}

int say(int code, const std::string& sentence) {
  std::fprintf(stderr, "skein: %s\n", sentence.c_str());
  return code;
}

// libtorch appends a stack trace to what it has to say; the first line is the message.
std::string first_line(const char* text) { return std::string(text, std::strcspn(text, "\n")); }

int run(int argc, char** argv) {
  try {
    const int code = skein::run_command_line(argc, argv);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
      return say(1, "the result could not be written to standard output; the disk may be full or the reader gone");
    }
    return code;
  } catch (const skein::Failure& failure) {
    return say(exit_code(failure.error().kind), failure.what());
  } catch (const std::bad_alloc&) {
    return say(1, "out of memory; use less: a smaller batch, --max-input, --dtype bf16 or fewer experts");
  } catch (const std::exception& exception) {
    return say(1, first_line(exception.what()));
  }
}

// OpenMP's threads spin for milliseconds at each barrier. When another program wants the cores too, each spins while
// the one it waits for is not running: a training step then takes twelve times as long (docs/results/speed.md). The
// runtime reads its settings when it is loaded, before main, so long work starts the program once more with a short
// spin, unless the user has said otherwise.
void limit_spinning(int argc, char** argv) {
  if (argc < 2 || !skein::is_long_work(argv[1])) return;
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  char program[4096];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length <= 0) return;
  program[length] = '\0';
  setenv("GOMP_SPINCOUNT", "10000", 1);
  execv(program, argv);  // comes back only if it failed: then all is as it was
}

}  // namespace

int main(int argc, char** argv) {
  limit_spinning(argc, argv);
  skein::catch_interrupts();
  const int code = run(argc, argv);
  std::fflush(stdout);
  return code;
}
