// library check --capture: runs a pool on data and names the experts that grab tokens beyond their share, and those
// whose update or gates are so long that they outweigh the others.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "skein/cli/common_options.h"

namespace skein {

struct CaptureOptions {
  std::string library;
  std::string base;  // empty: the one the library was created from
  std::vector<std::string> data;
  std::int64_t limit = 100;  // examples per file
  double factor = 2;         // an expert is named when its share exceeds factor / E
  double size_factor = 5;    // and when its update or gates are longer than this many times the pool's median
  std::string router = "phatgoose";
  CommonOptions common;
};

// Prints the table; exit code 3 when an expert is named. Throws Failure.
int capture_check(const CaptureOptions& options);

}  // namespace skein
