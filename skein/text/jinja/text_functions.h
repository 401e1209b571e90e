// Python's string functions over UTF-8.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "skein/text/jinja/value.h"

namespace skein::jinja {

std::vector<std::string_view> characters_of(std::string_view text);
// Of both ends, or one; characters: which ones, empty: white space.
std::string strip(std::string_view text, std::string_view characters, bool left, bool right);
std::string lower(std::string_view text);
std::string upper(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);
std::string replace_all(std::string_view text, std::string_view from, std::string_view to, std::int64_t most);
// separator empty: at runs of white space. most < 0: no limit.
Value::List split(std::string_view text, std::string_view separator, std::int64_t most);
Value::List rsplit(std::string_view text, std::string_view separator, std::int64_t most);
Value::List split_lines(std::string_view text);

}  // namespace skein::jinja
