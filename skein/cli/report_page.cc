#include "skein/cli/report_page.h"

#include <cstring>
#include <string_view>

#include "skein/base/check.h"

namespace skein {

// Generated from report_page.html and from the plotting library that tools/fetch_echarts.sh puts in place (else empty).
extern const unsigned char kReportPageTemplate[];
extern const std::size_t kReportPageTemplateSize;
extern const unsigned char kEcharts[];
extern const std::size_t kEchartsSize;

namespace {

void put(std::string& page, std::string_view placeholder, std::string_view text) {
  const std::size_t at = page.find(placeholder);
  SKEIN_CHECK(at != std::string::npos);
  page.replace(at, placeholder.size(), text);
}

}  // namespace

bool has_plots() { return kEchartsSize > 0; }

std::string report_page(const Json& data) {
  std::string text = data.dump(-1, ' ', false, Json::error_handler_t::replace);
  // Text from data must not end the script element it stands in.
  for (std::size_t at = 0; (at = text.find('<', at)) != std::string::npos;) text.replace(at, 1, "\\u003c");
  std::string page(kReportPageTemplate, kReportPageTemplate + kReportPageTemplateSize);
  // The library first: its place stands behind that of the data, whose text may hold anything.
  put(page, "/*SKEIN_ECHARTS*/", {reinterpret_cast<const char*>(kEcharts), kEchartsSize});
  put(page, "\"SKEIN_REPORT_DATA\"", text);
  return page;
}

}  // namespace skein
