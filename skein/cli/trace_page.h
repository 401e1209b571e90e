// A trace as one self-contained HTML page (skein/cli/trace_page.html): no request leaves it.
#pragma once

#include <string>
#include <vector>

#include "skein/cli/trace.h"

namespace skein {

// traces: one, or two of the same tokens under different routers, side by side. Titles say which router.
std::string trace_page(const std::vector<Trace>& traces);

}  // namespace skein
