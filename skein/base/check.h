// Checks of the program's own invariants. No input from outside can reach a failing one: bad input is a Result.
#pragma once

namespace skein {
// Prints where and what, then aborts.
[[noreturn]] void check_failed(const char* condition, const char* file, int line);
}  // namespace skein

#define SKEIN_CHECK(condition) \
  (static_cast<bool>(condition) ? static_cast<void>(0) : ::skein::check_failed(#condition, __FILE__, __LINE__))
