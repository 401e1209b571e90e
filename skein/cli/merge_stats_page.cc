#include "skein/cli/merge_stats_page.h"

#include "skein/base/check.h"

namespace skein {

// Generated from merge_stats_page.html.
extern const unsigned char kMergeStatsPageTemplate[];
extern const std::size_t kMergeStatsPageTemplateSize;

std::string merge_stats_page(const Json& statistics) {
  constexpr char kPlaceholder[] = "\"SKEIN_MERGE_STATS\"";
  std::string page(reinterpret_cast<const char*>(kMergeStatsPageTemplate), kMergeStatsPageTemplateSize);
  const std::size_t at = page.find(kPlaceholder);
  SKEIN_CHECK(at != std::string::npos);
  std::string data = statistics.dump(-1, ' ', true, Json::error_handler_t::replace);
  // Names come from files: nothing in them may end the script element.
  for (std::size_t i = 0; (i = data.find('<', i)) != std::string::npos;) data.replace(i, 1, "\\u003c");
  page.replace(at, sizeof(kPlaceholder) - 1, data);
  return page;
}

}  // namespace skein
