// What a filter, test, method or function is called with, and how built-in ones read it.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "skein/text/jinja/value.h"

namespace skein::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // By place or by name; null if not given.
  const Value* get(std::size_t place, std::string_view name) const;
};

// "WHAT was given a list; WANTED was expected".
Error wrong_kind(const std::string& what, const Value& value, const char* wanted);

// The argument at a place or of a name; missing or none gives `otherwise`.
Result<std::string> text_argument(const Arguments& arguments, std::size_t place, std::string_view name,
                                  const std::string& otherwise, const std::string& what);
Result<std::int64_t> integer_argument(const Arguments& arguments, std::size_t place, std::string_view name,
                                      std::int64_t otherwise, const std::string& what);

// What a loop over the value walks: items, characters, keys; undefined is nothing.
Result<Value::List> items_of(const Value& value, const std::string& what);

}  // namespace skein::jinja
