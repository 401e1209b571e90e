#include "skein/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace skein {

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "skein: internal error: %s:%d: %s does not hold; this is a bug, please report it\n", file, line,
               condition);
  std::abort();
}

}  // namespace skein
