#include "skein/text/jinja/arguments.h"

#include "skein/base/concat.h"
#include "skein/text/jinja/text_functions.h"

namespace skein::jinja {

const Value* Arguments::get(std::size_t place, std::string_view name) const {
  if (place < positional.size()) return &positional[place];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

Error wrong_kind(const std::string& what, const Value& value, const char* wanted) {
  return Error{concat(what, " was given ", value.kind(), "; ", wanted, " was expected")};
}

Result<std::string> text_argument(const Arguments& arguments, std::size_t place, std::string_view name,
                                  const std::string& otherwise, const std::string& what) {
  const Value* value = arguments.get(place, name);
  if (value == nullptr || value->is_none()) return otherwise;
  if (!value->is_string()) return wrong_kind(what, *value, "a string");
  return value->string();
}

Result<std::int64_t> integer_argument(const Arguments& arguments, std::size_t place, std::string_view name,
                                      std::int64_t otherwise, const std::string& what) {
  const Value* value = arguments.get(place, name);
  if (value == nullptr || value->is_none()) return otherwise;
  if (!value->is_integer() && !value->is_bool()) return wrong_kind(what, *value, "an integer");
  return value->integer();
}

Result<Value::List> items_of(const Value& value, const std::string& what) {
  if (value.is_undefined()) return Value::List{};
  if (value.is_list()) return value.list();
  Value::List items;
  if (value.is_string()) {
    for (const std::string_view character : characters_of(value.string())) items.emplace_back(std::string(character));
  } else if (value.is_dict()) {
    for (const auto& entry : value.dict()) items.emplace_back(entry.first);
  } else {
    return wrong_kind(what, value, "a list");
  }
  return items;
}

}  // namespace skein::jinja
