// What a command leaves on stdout: its result and nothing else.
#pragma once

#include <string>
#include <string_view>

#include "skein/io/json.h"

namespace skein {

// Bytes as they are.
void print_text(std::string_view text);
// One document, indented, or one line of JSON lines. Bytes that are not UTF-8 are replaced.
void print_json(const Json& document);
void print_json_line(const Json& line);
std::string json_line(const Json& line);  // without the newline

}  // namespace skein
