// merge_stats.html: the statistics of a merge as one page that needs nothing else.
#pragma once

#include <string>

#include "skein/io/json.h"

namespace skein {

std::string merge_stats_page(const Json& statistics);

}  // namespace skein
