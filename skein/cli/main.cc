// The program's door: the table of verbs, and the one place where errors become a sentence and an exit code.
#include <cstdio>
#include <cstring>
#include <new>

#include "skein/base/interrupt.h"
#include "skein/cli/command_line.h"

namespace {

int exit_code(skein::ErrorKind kind) {
  switch (kind) {
    case skein::ErrorKind::kUsage: return 2;
    case skein::ErrorKind::kDifference: return 3;
    case skein::ErrorKind::kInterrupted: return 130;
    case skein::ErrorKind::kFailed: break;
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

}  // namespace

int main(int argc, char** argv) {
  skein::catch_interrupts();
  const int code = run(argc, argv);
  std::fflush(stdout);
  return code;
}
