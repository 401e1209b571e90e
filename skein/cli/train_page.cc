#include "skein/cli/train_page.h"

#include <sstream>

#include "skein/cli/embedded_page.h"
#include "skein/io/json.h"

namespace skein {

// Generated from train_page.html.
extern const unsigned char kTrainPageTemplate[];
extern const std::size_t kTrainPageTemplateSize;

std::string train_page(const std::string& name, const std::string& log) {
  Json lines = Json::array();
  std::istringstream stream(log);
  for (std::string line; std::getline(stream, line);) {
    Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_object()) lines.push_back(std::move(json));
  }
  const std::string data = Json{{"name", name}, {"lines", lines}}.dump(-1, ' ', false, Json::error_handler_t::replace);
  std::string page = open_page(kTrainPageTemplate, kTrainPageTemplateSize);
  put_in_page(page, "\"SKEIN_TRAIN_DATA\"", for_script(data));
  return page;
}

}  // namespace skein
