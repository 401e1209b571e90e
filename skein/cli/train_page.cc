#include "skein/cli/train_page.h"

#include <cstring>
#include <sstream>

#include "skein/base/check.h"
#include "skein/io/json.h"

namespace skein {

// Generated from train_page.html.
extern const unsigned char kTrainPageTemplate[];
extern const std::size_t kTrainPageTemplateSize;

std::string train_page(const std::string& name, const std::string& log) {
  constexpr char kPlaceholder[] = "\"SKEIN_TRAIN_DATA\"";
  Json lines = Json::array();
  std::istringstream stream(log);
  for (std::string line; std::getline(stream, line);) {
    Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_object()) lines.push_back(std::move(json));
  }
  std::string data = Json{{"name", name}, {"lines", lines}}.dump(-1, ' ', false, Json::error_handler_t::replace);
  // A name must not end the script element it stands in.
  for (std::size_t at = 0; (at = data.find('<', at)) != std::string::npos;) data.replace(at, 1, "\\u003c");
  std::string page(kTrainPageTemplate, kTrainPageTemplate + kTrainPageTemplateSize);
  const std::size_t at = page.find(kPlaceholder);
  SKEIN_CHECK(at != std::string::npos);
  return page.replace(at, std::strlen(kPlaceholder), data);
}

}  // namespace skein
