// Filters, tests, methods and functions of templates: those that chat templates use. Others are refused by name.
#pragma once

#include <string>
#include <string_view>

#include "skein/text/jinja/arguments.h"

namespace skein::jinja {

Result<Value> apply_filter(const std::string& name, const Value& value, const Arguments& arguments);
Result<bool> apply_test(const std::string& name, const Value& value, const Arguments& arguments);
Result<Value> call_method(const Value& object, const std::string& name, const Arguments& arguments);
// raise_exception, range, namespace, dict, strftime_now.
bool is_function(std::string_view name);
Result<Value> call_function(const std::string& name, const Arguments& arguments);

// Python's sequence rules, by characters for strings: an index (negative from the end; nothing past the ends) and a
// slice.
Result<Value> item_of(const Value& object, const Value& index);
Result<Value> slice_of(const Value& object, const Value* begin, const Value* end, const Value* step);

}  // namespace skein::jinja
