// The files of the served page, compiled in.
#pragma once

#include <string_view>

namespace skein {

struct PageFile {
  std::string_view name;  // "app.js"
  const char* content_type;
  std::string_view content;
};

// Null: there is no such file.
const PageFile* find_page_file(std::string_view name);

// Everything from the server itself, nothing inline, nothing framed.
inline constexpr const char* kPagePolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

}  // namespace skein
