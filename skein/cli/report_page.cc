#include "skein/cli/report_page.h"

#include "skein/cli/embedded_page.h"

namespace skein {

// Generated from report_page.html and from the plotting library that tools/fetch_echarts.sh puts in place (else empty).
extern const unsigned char kReportPageTemplate[];
extern const std::size_t kReportPageTemplateSize;
extern const unsigned char kEcharts[];
extern const std::size_t kEchartsSize;

bool has_plots() { return kEchartsSize > 0; }

std::string report_page(const Json& data) {
  std::string page = open_page(kReportPageTemplate, kReportPageTemplateSize);
  // The library first: its place stands behind that of the data, whose text may hold anything.
  put_in_page(page, "/*SKEIN_ECHARTS*/", {reinterpret_cast<const char*>(kEcharts), kEchartsSize});
  put_in_page(page, "\"SKEIN_REPORT_DATA\"", for_script(data.dump(-1, ' ', false, Json::error_handler_t::replace)));
  return page;
}

}  // namespace skein
