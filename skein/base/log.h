// The log: lines on stderr, "skein: ..." ; warnings say so. A bar in progress is redrawn around a line.
#pragma once

#include <string_view>

namespace skein {

void log_info(std::string_view sentence);
void log_warning(std::string_view sentence);

}  // namespace skein
