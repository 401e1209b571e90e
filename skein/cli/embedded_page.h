// Pages compiled into the program (skein/cli/CMakeLists.txt) and the data that is put into them.
#pragma once

#include <string>
#include <string_view>

namespace skein {

// JSON as it may stand in a script element: text from outside must not end the element.
std::string for_script(std::string json);

// Replaces the placeholder, which the page must hold.
void put_in_page(std::string& page, std::string_view placeholder, std::string_view text);

}  // namespace skein
