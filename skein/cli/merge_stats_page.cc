#include "skein/cli/merge_stats_page.h"

#include "skein/cli/embedded_page.h"

namespace skein {

// Generated from merge_stats_page.html.
extern const unsigned char kMergeStatsPageTemplate[];
extern const std::size_t kMergeStatsPageTemplateSize;

std::string merge_stats_page(const Json& statistics) {
  std::string page = open_page(kMergeStatsPageTemplate, kMergeStatsPageTemplateSize);
  put_in_page(page, "\"SKEIN_MERGE_STATS\"",
              for_script(statistics.dump(-1, ' ', true, Json::error_handler_t::replace)));
  return page;
}

}  // namespace skein
