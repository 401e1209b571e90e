// Methods of strings and mappings, as Python has them.
#include <algorithm>

#include "skein/base/concat.h"
#include "skein/text/jinja/builtins.h"
#include "skein/text/jinja/text_functions.h"

namespace skein::jinja {
namespace {

// A string argument that may be missing.
Result<std::string> text_at(const Arguments& arguments, std::size_t place, const std::string& method) {
  if (place >= arguments.positional.size() || arguments.positional[place].is_none()) return std::string();
  const Value& value = arguments.positional[place];
  if (!value.is_string())
    return Error{concat("the method \"", method, "\" was given ", value.kind(), "; a string was expected")};
  return value.string();
}

std::int64_t limit_at(const Arguments& arguments, std::size_t place, const char* name) {
  const Value* value = arguments.get(place, name);
  return value != nullptr && value->is_integer() ? value->integer() : -1;
}

Result<bool> matches_end(const std::string& text, const Arguments& arguments, bool start, const std::string& method) {
  if (arguments.positional.size() != 1) return Error{concat("the method \"", method, "\" takes one argument here")};
  const Value& given = arguments.positional[0];
  const Value::List endings = given.is_list() ? given.list() : Value::List{given};
  for (const Value& ending : endings) {
    if (!ending.is_string())
      return Error{concat("the method \"", method, "\" was given ", ending.kind(), "; a string was expected")};
    if (start ? text.starts_with(ending.string()) : text.ends_with(ending.string())) return true;
  }
  return false;
}

Result<Value> text_method(const std::string& text, const std::string& name, const Arguments& arguments) {
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    SKEIN_ASSIGN(const std::string characters, text_at(arguments, 0, name));
    return Value(strip(text, characters, name != "rstrip", name != "lstrip"));
  }
  if (name == "upper") return Value(upper(text));
  if (name == "lower") return Value(lower(text));
  if (name == "capitalize") return Value(capitalize(text));
  if (name == "startswith" || name == "endswith") {
    SKEIN_ASSIGN(const bool matches, matches_end(text, arguments, name == "startswith", name));
    return Value(matches);
  }
  if (name == "split" || name == "rsplit") {
    const Value* given = arguments.get(0, "sep");
    const bool by_text = given != nullptr && given->is_string();
    if (by_text && given->string().empty())
      return Error{concat("the method \"", name, "\" was given an empty separator")};
    const std::int64_t most = limit_at(arguments, 1, "maxsplit");
    if (name == "split") return Value(split(text, by_text ? given->string() : "", most));
    if (!by_text) return Error{"the method \"rsplit\" needs a separator here"};
    return Value(rsplit(text, given->string(), most));
  }
  if (name == "splitlines") return Value(split_lines(text));
  if (name == "replace") return apply_filter("replace", Value(text), arguments);
  if (name == "join" && arguments.positional.size() == 1) {
    Arguments separator;
    separator.positional.emplace_back(text);
    return apply_filter("join", arguments.positional[0], separator);
  }
  if (name == "find" || name == "count") {
    SKEIN_ASSIGN(const std::string part, text_at(arguments, 0, name));
    if (part.empty()) return Error{concat("the method \"", name, "\" was given nothing to look for")};
    std::int64_t found = 0;
    if (name == "find") {
      const std::size_t at = text.find(part);
      found = at == std::string::npos
                  ? -1
                  : static_cast<std::int64_t>(characters_of(std::string_view(text).substr(0, at)).size());
    } else {
      for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++found;
    }
    return Value(found);
  }
  if (name == "isdigit") {
    return Value(!text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; }));
  }
  return Error{concat("the string method \"", printable(name), "\" is not one Skein has")};
}

}  // namespace

Result<Value> call_method(const Value& object, const std::string& name, const Arguments& arguments) {
  if (object.is_string()) return text_method(object.string(), name, arguments);
  if (object.is_dict()) {
    if (name == "items") return apply_filter("items", object, {});
    if (name == "keys") return apply_filter("list", object, {});
    if (name == "values") {
      Value::List values;
      for (const auto& entry : object.dict()) values.push_back(entry.second);
      return Value(std::move(values));
    }
    if (name == "get" && !arguments.positional.empty()) {
      const Value& key = arguments.positional[0];
      const Value* member = key.is_string() ? object.find(key.string()) : nullptr;
      if (member != nullptr) return *member;
      return arguments.positional.size() > 1 ? arguments.positional[1] : Value(Value::None{});
    }
  }
  if (object.is_undefined()) return Error{concat("\"", printable(object.undefined_name()), "\" is undefined")};
  return Error{concat("the method \"", printable(name), "\" of ", object.kind(), " is not one Skein has")};
}

}  // namespace skein::jinja
