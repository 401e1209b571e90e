// Pages compiled into the program (skein/cli/CMakeLists.txt) and the data that is put into them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace skein {

// A page: the head that all have (page_head.html: meta, colours, what plain elements look like), then its own template,
// which begins with its title.
std::string open_page(const unsigned char* own, std::size_t size);

// JSON as it may stand in a script element: text from outside must not end the element.
std::string for_script(std::string json);

// Replaces the placeholder, which the page must hold.
void put_in_page(std::string& page, std::string_view placeholder, std::string_view text);

}  // namespace skein
