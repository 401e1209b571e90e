// The filters. A new one is a line in the table and a line in tests/golden/tokenizer/templates/language.jinja.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>

#include "skein/base/concat.h"
#include "skein/text/jinja/builtins.h"
#include "skein/text/jinja/text_functions.h"

namespace skein::jinja {
namespace {

Value::List pairs_of(const Value::Dict& dict) {
  Value::List pairs;
  for (const auto& [key, value] : dict) pairs.emplace_back(Value::List{key, value});
  return pairs;
}

Result<Value> length_of(const Value& value, const std::string& what) {
  if (value.is_string()) return Value(static_cast<std::int64_t>(characters_of(value.string()).size()));
  if (value.is_list()) return Value(static_cast<std::int64_t>(value.list().size()));
  if (value.is_dict()) return Value(static_cast<std::int64_t>(value.dict().size()));
  if (value.is_undefined()) return Value(std::int64_t{0});
  return wrong_kind(what, value, "a string, list or mapping");
}

// "a.b.0" of a value, as the attribute filters take it.
Value attribute_path(Value value, std::string_view path) {
  while (!path.empty()) {
    const std::size_t point = path.find('.');
    const std::string name(path.substr(0, point));
    path = point == std::string_view::npos ? std::string_view() : path.substr(point + 1);
    const Value* member = value.is_dict() ? value.find(name) : nullptr;
    value = member != nullptr ? Value(*member) : Value(Value::Undefined{name});
  }
  return value;
}

Result<Value> join(const Value& value, const Arguments& arguments) {
  SKEIN_ASSIGN(const std::string separator, text_argument(arguments, 0, "d", "", "join"));
  SKEIN_ASSIGN(const std::string attribute, text_argument(arguments, 1, "attribute", "", "join"));
  SKEIN_ASSIGN(const Value::List items, items_of(value, "join"));
  std::string out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += separator;
    out += attribute_path(items[i], attribute).text();
    if (out.size() > kMaxTextBytes) return Error{"join makes a text of more than 64 MiB"};
  }
  return Value(std::move(out));
}

Result<Value> replace(const std::string& text, const Arguments& arguments) {
  SKEIN_ASSIGN(const std::string from, text_argument(arguments, 0, "old", "", "replace"));
  SKEIN_ASSIGN(const std::string to, text_argument(arguments, 1, "new", "", "replace"));
  SKEIN_ASSIGN(const std::int64_t most, integer_argument(arguments, 2, "count", -1, "replace"));
  std::size_t found = from.empty() ? text.size() + 1 : 0;
  for (std::size_t at = 0; !from.empty() && (at = text.find(from, at)) != std::string::npos; at += from.size()) ++found;
  if (to.size() > 0 && found > kMaxTextBytes / to.size()) return Error{"replace makes a text of more than 64 MiB"};
  return Value(replace_all(text, from, to, most));
}

Result<Value> to_integer(const Value& value, const Arguments& arguments) {
  SKEIN_ASSIGN(const std::int64_t otherwise, integer_argument(arguments, 0, "default", 0, "int"));
  if (value.is_float())
    return Value(std::isfinite(value.number()) ? static_cast<std::int64_t>(value.number()) : otherwise);
  if (value.is_number()) return Value(value.integer());
  std::int64_t number = otherwise;
  if (value.is_string()) {
    const std::string text = strip(value.string(), "", true, true);
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (fault != std::errc() || end != text.data() + text.size()) number = otherwise;
  }
  return Value(number);
}

Result<Value> to_float(const Value& value) {
  if (value.is_number()) return Value(value.number());
  double number = 0;
  if (value.is_string()) {
    const std::string text = strip(value.string(), "", true, true);
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (fault != std::errc() || end != text.data() + text.size()) number = 0;
  }
  return Value(number);
}

// selectattr, rejectattr, select, reject: items (or an attribute of theirs) for which a test holds.
Result<Value> filter_items(const std::string& name, const Value& value, const Arguments& arguments) {
  const bool by_attribute = name.ends_with("attr");
  const bool wanted = name.starts_with("select");
  if (!value.truth()) return Value(Value::List{});  // none as well
  SKEIN_ASSIGN(const Value::List items, items_of(value, name));
  SKEIN_ASSIGN(const std::string attribute, text_argument(arguments, 0, "attribute", "", name));
  const std::size_t test_place = by_attribute ? 1 : 0;
  SKEIN_ASSIGN(const std::string test, text_argument(arguments, test_place, "test", "", name));
  Arguments rest;
  for (std::size_t i = test_place + 1; i < arguments.positional.size(); ++i)
    rest.positional.push_back(arguments.positional[i]);
  Value::List kept;
  for (const Value& item : items) {
    const Value subject = by_attribute ? attribute_path(item, attribute) : item;
    bool holds = subject.truth();
    if (!test.empty()) {
      SKEIN_ASSIGN(holds, apply_test(test, subject, rest));
    }
    if (holds == wanted) kept.push_back(item);
  }
  return Value(std::move(kept));
}

// map(attribute="x", default=y) or map("filter", ...).
Result<Value> map_items(const Value& value, const Arguments& arguments) {
  if (!value.truth()) return Value(Value::List{});  // none as well
  SKEIN_ASSIGN(const Value::List items, items_of(value, "map"));
  Value::List mapped;
  const Value* attribute = nullptr;
  const Value* otherwise = nullptr;
  for (const auto& [name, argument] : arguments.named) {
    if (name == "attribute") attribute = &argument;
    if (name == "default") otherwise = &argument;
  }
  Arguments rest;
  for (std::size_t i = 1; i < arguments.positional.size(); ++i) rest.positional.push_back(arguments.positional[i]);
  for (const Value& item : items) {
    if (attribute != nullptr) {
      Value found = attribute_path(item, attribute->text());
      mapped.push_back(found.is_undefined() && otherwise != nullptr ? *otherwise : std::move(found));
    } else if (!arguments.positional.empty()) {
      SKEIN_ASSIGN(Value result, apply_filter(arguments.positional[0].text(), item, rest));
      mapped.push_back(std::move(result));
    } else {
      return Error{"map needs an attribute or the name of a filter"};
    }
  }
  return Value(std::move(mapped));
}

Result<Value> indent(const std::string& text, const Arguments& arguments) {
  const Value* given = arguments.get(0, "width");
  std::string pad(4, ' ');
  if (given != nullptr && given->is_string()) {
    pad = given->string();
  } else {
    SKEIN_ASSIGN(const std::int64_t width, integer_argument(arguments, 0, "width", 4, "indent"));
    if (width < 0 || width > 1000) return Error{concat("indent by ", width, " is out of range")};
    pad.assign(static_cast<std::size_t>(width), ' ');
  }
  const Value* first = arguments.get(1, "first");
  const Value* blank = arguments.get(2, "blank");
  std::string out = first != nullptr && first->truth() ? pad : "";
  for (std::size_t i = 0; i < text.size(); ++i) {
    out += text[i];
    const bool line_starts = text[i] == '\n' && i + 1 < text.size();
    if (line_starts && (text[i + 1] != '\n' || (blank != nullptr && blank->truth()))) out += pad;
    if (out.size() > kMaxTextBytes) return Error{"indent makes a text of more than 64 MiB"};
  }
  return Value(std::move(out));
}

using Filter = std::function<Result<Value>(const Value&, const Arguments&)>;

Filter on_text(std::function<std::string(const std::string&)> change) {
  return [change = std::move(change)](const Value& value, const Arguments&) -> Result<Value> {
    return Value(change(value.text()));
  };
}

Result<Value> end_item(const Value& value, bool first) {
  SKEIN_ASSIGN(const Value::List items, items_of(value, first ? "first" : "last"));
  if (items.empty()) return Value();
  return first ? items.front() : items.back();
}

Result<Value> reversed(const Value& value) {
  SKEIN_ASSIGN(Value::List items, items_of(value, "reverse"));
  std::reverse(items.begin(), items.end());
  if (!value.is_string()) return Value(std::move(items));
  std::string text;
  for (const Value& character : items) text += character.string();
  return Value(std::move(text));
}

Result<Value> unique(const Value& value) {
  SKEIN_ASSIGN(const Value::List items, items_of(value, "unique"));
  Value::List kept;
  for (const Value& item : items) {
    if (std::none_of(kept.begin(), kept.end(), [&](const Value& other) { return equal(item, other); }))
      kept.push_back(item);
  }
  return Value(std::move(kept));
}

Result<Value> default_of(const Value& value, const Arguments& arguments) {
  const Value* otherwise = arguments.get(0, "default_value");
  const Value* boolean = arguments.get(1, "boolean");
  const bool falls = value.is_undefined() || (boolean != nullptr && boolean->truth() && !value.truth());
  if (!falls) return value;
  return otherwise != nullptr ? *otherwise : Value("");
}

Result<Value> json_of(const Value& value, const Arguments& arguments) {
  for (const auto& [name, argument] : arguments.named) {
    if (name != "indent" && !(name == "ensure_ascii" && !argument.truth())) {
      return Error{concat("tojson's argument \"", printable(name), "\" is not one Skein has")};
    }
  }
  SKEIN_ASSIGN(const std::int64_t spaces, integer_argument(arguments, 1, "indent", -1, "tojson"));
  if (value.is_undefined() || value.is_macro()) return wrong_kind("tojson", value, "a value");
  if (spaces > 100) return Error{concat("tojson with an indent of ", spaces, " is out of range")};
  return Value(to_json(value, static_cast<int>(spaces)));
}

const std::map<std::string, Filter, std::less<>>& filters() {
  static const std::map<std::string, Filter, std::less<>> table = {
      {"trim",
       [](const Value& v, const Arguments& a) -> Result<Value> {
         SKEIN_ASSIGN(const std::string characters, text_argument(a, 0, "chars", "", "trim"));
         return Value(strip(v.text(), characters, true, true));
       }},
      {"length", [](const Value& v, const Arguments&) { return length_of(v, "length"); }},
      {"count", [](const Value& v, const Arguments&) { return length_of(v, "count"); }},
      {"upper", on_text([](const std::string& text) { return upper(text); })},
      {"lower", on_text([](const std::string& text) { return lower(text); })},
      {"title", on_text([](const std::string& text) { return title(text); })},
      {"capitalize", on_text([](const std::string& text) { return capitalize(text); })},
      {"string", on_text([](const std::string& text) { return text; })},
      {"safe", on_text([](const std::string& text) { return text; })},
      {"replace", [](const Value& v, const Arguments& a) { return replace(v.text(), a); }},
      {"join", join},
      {"default", default_of},
      {"d", default_of},
      {"tojson", json_of},
      {"int", to_integer},
      {"float", [](const Value& v, const Arguments&) { return to_float(v); }},
      {"abs",
       [](const Value& v, const Arguments&) -> Result<Value> {
         if (!v.is_number()) return wrong_kind("abs", v, "a number");
         return v.is_float() ? Value(std::fabs(v.number())) : Value(v.integer() < 0 ? -v.integer() : v.integer());
       }},
      {"list",
       [](const Value& v, const Arguments&) -> Result<Value> {
         SKEIN_ASSIGN(Value::List items, items_of(v, "list"));
         return Value(std::move(items));
       }},
      {"first", [](const Value& v, const Arguments&) { return end_item(v, true); }},
      {"last", [](const Value& v, const Arguments&) { return end_item(v, false); }},
      {"reverse", [](const Value& v, const Arguments&) { return reversed(v); }},
      {"unique", [](const Value& v, const Arguments&) { return unique(v); }},
      {"items",
       [](const Value& v, const Arguments&) -> Result<Value> {
         if (v.is_undefined()) return Value(Value::List{});
         if (!v.is_dict()) return wrong_kind("items", v, "a mapping");
         return Value(pairs_of(v.dict()));
       }},
      {"map", map_items},
      {"indent", [](const Value& v, const Arguments& a) { return indent(v.text(), a); }},
      {"selectattr", [](const Value& v, const Arguments& a) { return filter_items("selectattr", v, a); }},
      {"rejectattr", [](const Value& v, const Arguments& a) { return filter_items("rejectattr", v, a); }},
      {"select", [](const Value& v, const Arguments& a) { return filter_items("select", v, a); }},
      {"reject", [](const Value& v, const Arguments& a) { return filter_items("reject", v, a); }},
  };
  return table;
}

std::string names_of_filters() {
  std::string names;
  for (const auto& entry : filters()) names += (names.empty() ? "" : ", ") + entry.first;
  return names;
}

}  // namespace

Result<Value> apply_filter(const std::string& name, const Value& value, const Arguments& arguments) {
  const auto found = filters().find(name);
  if (found == filters().end()) {
    return Error{concat("the filter \"", printable(name), "\" is not one Skein has (", names_of_filters(), ")")};
  }
  return found->second(value, arguments);
}

}  // namespace skein::jinja
