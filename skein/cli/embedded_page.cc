#include "skein/cli/embedded_page.h"

#include "skein/base/check.h"

namespace skein {

// Generated from page_head.html.
extern const unsigned char kPageHead[];
extern const std::size_t kPageHeadSize;

std::string open_page(const unsigned char* own, std::size_t size) {
  std::string page(kPageHead, kPageHead + kPageHeadSize);
  return page.append(own, own + size);
}

std::string for_script(std::string json) {
  for (std::size_t at = 0; (at = json.find('<', at)) != std::string::npos;) json.replace(at, 1, "\\u003c");
  return json;
}

void put_in_page(std::string& page, std::string_view placeholder, std::string_view text) {
  const std::size_t at = page.find(placeholder);
  SKEIN_CHECK(at != std::string::npos);
  page.replace(at, placeholder.size(), text);
}

}  // namespace skein
