// A comparison as one self-contained HTML page (skein/cli/report_page.html with Apache ECharts inside): no request
// leaves it.
#pragma once

#include <string>

#include "skein/io/json.h"

namespace skein {

// data: report_json() of skein/eval/report_data.h.
std::string report_page(const Json& data);
// Whether this build has the plotting library; without it the page has its tables only.
bool has_plots();

}  // namespace skein
