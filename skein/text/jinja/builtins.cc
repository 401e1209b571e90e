#include "skein/text/jinja/builtins.h"

#include <algorithm>
#include <ctime>

#include "skein/base/concat.h"
#include "skein/text/jinja/text_functions.h"

namespace skein::jinja {
namespace {

Result<bool> contains(const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) return wrong_kind("\"in\" a string", item, "a string");
    return container.string().find(item.string()) != std::string::npos;
  }
  if (container.is_dict()) return item.is_string() && container.find(item.string()) != nullptr;
  if (container.is_undefined()) return false;
  if (!container.is_list()) return wrong_kind("\"in\"", container, "a list, mapping or string");
  return std::any_of(container.list().begin(), container.list().end(),
                     [&](const Value& other) { return equal(item, other); });
}

// One argument of a test: "is divisibleby 3".
Result<Value> operand(const Arguments& arguments, const std::string& test) {
  if (arguments.positional.size() != 1) return Error{concat("the test \"", test, "\" needs one argument")};
  return arguments.positional[0];
}

Result<bool> apply_relation(const std::string& name, const Value& value, const Arguments& arguments) {
  SKEIN_ASSIGN(const Value other, operand(arguments, name));
  if (name == "in") return contains(other, value);
  if (name == "equalto" || name == "eq" || name == "sameas") return equal(value, other);
  if (name == "ne") return !equal(value, other);
  if (name == "divisibleby") {
    if (!value.is_integer() || !other.is_integer() || other.integer() == 0)
      return wrong_kind("divisibleby", other, "an integer that is not zero");
    return value.integer() % other.integer() == 0;
  }
  const auto order = compare(value, other);
  if (!order) return wrong_kind(concat("a comparison with ", value.kind()), other, "the same kind");
  if (name == "lt" || name == "lessthan") return *order < 0;
  if (name == "le") return *order <= 0;
  if (name == "gt" || name == "greaterthan") return *order > 0;
  return *order >= 0;
}

}  // namespace

Result<bool> apply_test(const std::string& name, const Value& value, const Arguments& arguments) {
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.is_none();
  if (name == "string") return value.is_string();
  if (name == "mapping") return value.is_dict();
  if (name == "boolean") return value.is_bool();
  if (name == "true") return value.is_bool() && value.truth();
  if (name == "false") return value.is_bool() && !value.truth();
  if (name == "number") return value.is_number();
  if (name == "integer") return value.is_integer();
  if (name == "float") return value.is_float();
  if (name == "callable") return value.is_macro();
  // Strings and mappings are sequences too: Jinja asks only for a length and items. Undefined has both.
  if (name == "sequence") return value.is_list() || value.is_string() || value.is_dict() || value.is_undefined();
  if (name == "iterable") return value.is_list() || value.is_string() || value.is_dict() || value.is_undefined();
  if (name == "odd" || name == "even") {
    if (!value.is_integer()) return wrong_kind(concat("the test \"", name, "\""), value, "an integer");
    return (value.integer() % 2 != 0) == (name == "odd");
  }
  static constexpr std::string_view kRelations[] = {"in", "equalto",  "eq", "sameas", "ne",          "divisibleby",
                                                    "lt", "lessthan", "le", "gt",     "greaterthan", "ge"};
  if (std::find(std::begin(kRelations), std::end(kRelations), name) != std::end(kRelations)) {
    return apply_relation(name, value, arguments);
  }
  return Error{concat("the test \"", printable(name), "\" is not one Skein has")};
}

bool is_function(std::string_view name) {
  static constexpr std::string_view kNames[] = {"raise_exception", "namespace", "dict", "range", "strftime_now"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

Result<Value> call_function(const std::string& name, const Arguments& arguments) {
  if (name == "raise_exception") {
    return Error{concat("the template refuses this conversation: ",
                        arguments.positional.empty() ? std::string() : printable(arguments.positional[0].text(), 400))};
  }
  if (name == "namespace" || name == "dict") {
    Value::Dict members;
    for (const Value& from : arguments.positional) {
      if (from.is_dict()) members.insert(members.end(), from.dict().begin(), from.dict().end());
    }
    for (const auto& [key, value] : arguments.named) {
      SKEIN_TRY(value.may_be_part());
      std::erase_if(members, [&key = key](const auto& member) { return member.first == key; });
      members.emplace_back(key, value);
    }
    return name == "namespace" ? Value::make_namespace(std::move(members)) : Value(std::move(members));
  }
  if (name == "range") {
    SKEIN_ASSIGN(std::int64_t begin, integer_argument(arguments, 0, "", 0, name));
    SKEIN_ASSIGN(std::int64_t end, integer_argument(arguments, 1, "", 0, name));
    SKEIN_ASSIGN(const std::int64_t step, integer_argument(arguments, 2, "", 1, name));
    if (arguments.positional.size() == 1) {
      end = begin;
      begin = 0;
    }
    if (step == 0) return Error{"range has a step of zero"};
    Value::List numbers;
    for (std::int64_t i = begin; step > 0 ? i < end : i > end; i += step) {
      if (numbers.size() >= 100000)
        return Error{"range has more than 100,000 numbers"};  // the limit of Jinja's sandbox
      numbers.emplace_back(i);
    }
    return Value(std::move(numbers));
  }
  if (name == "strftime_now") {
    SKEIN_ASSIGN(const std::string format, text_argument(arguments, 0, "format", "", name));
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    localtime_r(&now, &local);
    char text[256];
    return Value(std::string(text, std::strftime(text, sizeof text, format.c_str(), &local)));
  }
  return Error{concat("the function \"", printable(name), "\" is not one Skein has")};
}

Result<Value> item_of(const Value& object, const Value& index) {
  if (object.is_dict()) {
    const Value* member = index.is_string() ? object.find(index.string()) : nullptr;
    return member != nullptr ? *member : Value(Value::Undefined{index.text()});
  }
  if (object.is_undefined()) return Error{concat("\"", printable(object.undefined_name()), "\" is undefined")};
  if ((!object.is_list() && !object.is_string()) || !index.is_integer()) return Value(Value::Undefined{index.text()});
  const auto pick = [&](const auto& items) -> Value {
    const auto size = static_cast<std::int64_t>(items.size());
    const std::int64_t at = index.integer() < 0 ? index.integer() + size : index.integer();
    if (at < 0 || at >= size) return Value(Value::Undefined{index.text()});
    if constexpr (std::is_same_v<std::decay_t<decltype(items)>, Value::List>) {
      return items[at];
    } else {
      return Value(std::string(items[at]));
    }
  };
  return object.is_list() ? pick(object.list()) : pick(characters_of(object.string()));
}

Result<Value> slice_of(const Value& object, const Value* begin, const Value* end, const Value* step) {
  SKEIN_ASSIGN(const Value::List items, items_of(object, "a slice"));
  const auto size = static_cast<std::int64_t>(items.size());
  const auto bound = [&](const Value* value, std::int64_t otherwise) -> Result<std::int64_t> {
    if (value == nullptr || value->is_none()) return otherwise;
    if (!value->is_integer()) return wrong_kind("a slice", *value, "integers");
    return value->integer();
  };
  SKEIN_ASSIGN(const std::int64_t stride, bound(step, 1));
  if (stride == 0) return Error{"a slice has a step of zero"};
  const std::int64_t low = stride > 0 ? 0 : -1, high = stride > 0 ? size : size - 1;
  SKEIN_ASSIGN(std::int64_t from, bound(begin, stride > 0 ? 0 : size - 1));
  SKEIN_ASSIGN(std::int64_t to, bound(end, stride > 0 ? size : -size - 1));
  if (from < 0) from += size;
  if (to < 0) to += size;
  from = std::clamp(from, low, std::max(low, high));
  to = std::clamp(to, low, std::max(low, high));
  Value::List kept;
  for (std::int64_t i = from; stride > 0 ? i < to : i > to; i += std::clamp<std::int64_t>(stride, -size - 1, size + 1))
    kept.push_back(items[i]);
  if (!object.is_string()) return Value(std::move(kept));
  std::string text;
  for (const Value& character : kept) text += character.string();
  return Value(std::move(text));
}

}  // namespace skein::jinja
