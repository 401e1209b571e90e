#include "skein/serve/page_files.h"

#include <algorithm>
#include <iterator>

namespace skein {

// Compiled in by page/page.cmake.
#define SKEIN_PAGE_FILE(constant)        \
  extern const unsigned char constant[]; \
  extern const std::size_t constant##Size
SKEIN_PAGE_FILE(kIndexHtml);
SKEIN_PAGE_FILE(kStyleCss);
SKEIN_PAGE_FILE(kAppJs);
SKEIN_PAGE_FILE(kApiJs);
SKEIN_PAGE_FILE(kChatJs);
SKEIN_PAGE_FILE(kColoursJs);
SKEIN_PAGE_FILE(kHistoryJs);
SKEIN_PAGE_FILE(kSettingsJs);
SKEIN_PAGE_FILE(kTraceJs);
SKEIN_PAGE_FILE(kIconSvg);
#undef SKEIN_PAGE_FILE

namespace {

constexpr const char* kScript = "text/javascript; charset=utf-8";

PageFile file(std::string_view name, const char* type, const unsigned char* bytes, std::size_t size) {
  return {name, type, {reinterpret_cast<const char*>(bytes), size}};
}

}  // namespace

const PageFile* find_page_file(std::string_view name) {
  static const PageFile kFiles[] = {
      file("index.html", "text/html; charset=utf-8", kIndexHtml, kIndexHtmlSize),
      file("style.css", "text/css; charset=utf-8", kStyleCss, kStyleCssSize),
      file("app.js", kScript, kAppJs, kAppJsSize),
      file("api.js", kScript, kApiJs, kApiJsSize),
      file("chat.js", kScript, kChatJs, kChatJsSize),
      file("colours.js", kScript, kColoursJs, kColoursJsSize),
      file("history.js", kScript, kHistoryJs, kHistoryJsSize),
      file("settings.js", kScript, kSettingsJs, kSettingsJsSize),
      file("trace.js", kScript, kTraceJs, kTraceJsSize),
      file("icon.svg", "image/svg+xml", kIconSvg, kIconSvgSize),
  };
  const auto found =
      std::find_if(std::begin(kFiles), std::end(kFiles), [&](const PageFile& f) { return f.name == name; });
  return found == std::end(kFiles) ? nullptr : &*found;
}

}  // namespace skein
