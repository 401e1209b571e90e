#include "skein/text/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "skein/base/concat.h"

namespace skein::jinja {
namespace {

// Python's repr of a float: the shortest digits that read back, a point or an exponent in any case.
std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char digits[40];
  const double size = std::fabs(value);
  const bool plain = value == 0 || (size >= 1e-4 && size < 1e16);
  const auto end = std::to_chars(digits, digits + sizeof digits, value,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(digits, end.ptr);
  if (plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

std::string quoted(const std::string& text) {
  const char quote = text.find('\'') != std::string::npos && text.find('"') == std::string::npos ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : text) {
    if (c == quote || c == '\\') {
      out += {'\\', c};
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else {
      out += c;
    }
  }
  return out + quote;
}

std::string json_string(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\b') {
      out += "\\b";
    } else if (c == '\f') {
      out += "\\f";
    } else if (byte < 0x20) {
      constexpr char kHex[] = "0123456789abcdef";
      out += concat("\\u00", std::string{kHex[byte >> 4], kHex[byte & 15]});
    } else {
      out += c;
    }
  }
  return out + "\"";
}

void write_json(const Value& value, int indent, int depth, std::string& out) {
  if (out.size() > kMaxTextBytes) return;
  const auto line = [&](int level) {
    if (indent >= 0) out += concat("\n", std::string(static_cast<std::size_t>(indent) * level, ' '));
  };
  const char* const comma = indent >= 0 ? "," : ", ";
  if (value.is_string()) {
    out += json_string(value.string());
  } else if (value.is_bool()) {
    out += value.truth() ? "true" : "false";
  } else if (value.is_none()) {
    out += "null";
  } else if (value.is_list()) {
    out += "[";
    bool first = true;
    for (const Value& item : value.list()) {
      if (!first) out += comma;
      first = false;
      line(depth + 1);
      write_json(item, indent, depth + 1, out);
    }
    if (!first) line(depth);
    out += "]";
  } else if (value.is_dict()) {
    out += "{";
    bool first = true;
    for (const auto& [key, item] : value.dict()) {
      if (!first) out += comma;
      first = false;
      line(depth + 1);
      out += json_string(key) + ": ";
      write_json(item, indent, depth + 1, out);
    }
    if (!first) line(depth);
    out += "}";
  } else {
    out += value.text();
  }
}

void write_representation(const Value& value, std::string& out) {
  if (out.size() > kMaxTextBytes) return;
  if (value.is_undefined()) {
    out += "Undefined";
  } else if (value.is_none()) {
    out += "None";
  } else if (value.is_bool()) {
    out += value.truth() ? "True" : "False";
  } else if (value.is_integer()) {
    out += std::to_string(value.integer());
  } else if (value.is_float()) {
    out += float_text(value.number());
  } else if (value.is_string()) {
    out += quoted(value.string());
  } else if (value.is_macro()) {
    out += "<function>";
  } else if (value.is_list()) {
    const char* before = "[";
    for (const Value& item : value.list()) {
      out += std::exchange(before, ", ");
      write_representation(item, out);
    }
    out += value.list().empty() ? "[]" : "]";
  } else {
    const char* before = "{";
    for (const auto& [key, item] : value.dict()) {
      out += concat(std::exchange(before, ", "), quoted(key), ": ");
      write_representation(item, out);
    }
    out += value.dict().empty() ? "{}" : "}";
  }
}

bool equal_within(const Value& a, const Value& b, std::int64_t& budget) {
  if (--budget < 0) return false;
  if (a.is_number() && b.is_number()) return a.number() == b.number();
  if (a.is_string() && b.is_string()) return a.string() == b.string();
  if (a.is_list() && b.is_list()) {
    if (a.list().size() != b.list().size()) return false;
    for (std::size_t i = 0; i < a.list().size(); ++i) {
      if (!equal_within(a.list()[i], b.list()[i], budget)) return false;
    }
    return true;
  }
  if (a.is_dict() && b.is_dict()) {
    if (a.dict().size() != b.dict().size()) return false;
    for (const auto& [key, value] : a.dict()) {
      const Value* other = b.find(key);
      if (other == nullptr || !equal_within(value, *other, budget)) return false;
    }
    return true;
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

}  // namespace

Value::Value(List value) {
  auto node = std::make_shared<Node<List>>();
  for (const Value& item : value) node->depth = std::max(node->depth, item.depth() + 1);
  node->members = std::move(value);
  value_ = std::move(node);
}

Value::Value(Dict value) {
  auto node = std::make_shared<Node<Dict>>();
  for (const auto& entry : value) node->depth = std::max(node->depth, entry.second.depth() + 1);
  node->members = std::move(value);
  value_ = std::move(node);
}

int Value::depth() const {
  if (is_list()) return std::get<std::shared_ptr<Node<List>>>(value_)->depth;
  return is_dict() ? std::get<std::shared_ptr<Node<Dict>>>(value_)->depth : 0;
}

Value Value::make_namespace(Dict members) {
  Value value(std::move(members));
  std::get<std::shared_ptr<Node<Dict>>>(value.value_)->is_namespace = true;
  return value;
}

bool Value::is_namespace() const { return is_dict() && std::get<std::shared_ptr<Node<Dict>>>(value_)->is_namespace; }

Status Value::may_be_part() const {
  if (is_namespace()) return Error{"a namespace cannot be part of another value"};
  if (depth() >= kMaxValueDepth) return Error{concat("a value is nested deeper than ", kMaxValueDepth, " levels")};
  return {};
}

Status Value::set_member(const std::string& name, Value value) {
  SKEIN_CHECK(is_namespace());
  SKEIN_TRY(value.may_be_part());
  auto& members = std::get<std::shared_ptr<Node<Dict>>>(value_)->members;
  for (auto& [key, member] : members) {
    if (key == name) {
      member = std::move(value);
      return {};
    }
  }
  members.emplace_back(name, std::move(value));
  return {};
}

std::int64_t Value::integer() const { return is_bool() ? std::get<bool>(value_) : std::get<std::int64_t>(value_); }
double Value::number() const { return is_float() ? std::get<double>(value_) : static_cast<double>(integer()); }

const Value* Value::find(std::string_view key) const {
  for (const auto& [name, value] : dict()) {
    if (name == key) return &value;
  }
  return nullptr;
}

bool Value::truth() const {
  if (is_bool()) return std::get<bool>(value_);
  if (is_number()) return number() != 0;
  if (is_string()) return !string().empty();
  if (is_list()) return !list().empty();
  if (is_dict()) return !dict().empty();
  return is_macro();
}

std::string Value::text() const {
  if (is_string()) return string();
  if (is_undefined()) return {};
  return representation();
}

std::string Value::representation() const {
  std::string out;
  write_representation(*this, out);
  return out;
}

std::string_view Value::kind() const {
  if (is_undefined()) return "undefined";
  if (is_none()) return "none";
  if (is_bool()) return "a boolean";
  if (is_integer()) return "an integer";
  if (is_float()) return "a float";
  if (is_string()) return "a string";
  if (is_list()) return "a list";
  return is_dict() ? "a mapping" : "a macro";
}

bool equal(const Value& a, const Value& b) {
  std::int64_t budget = 1'000'000;
  return equal_within(a, b, budget);
}

std::optional<int> compare(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    const double x = a.number(), y = b.number();
    return x < y ? -1 : x > y ? 1 : 0;
  }
  if (a.is_string() && b.is_string()) return a.string().compare(b.string());  // UTF-8 sorts as its code points
  return std::nullopt;
}

std::string to_json(const Value& value, int indent) {
  std::string out;
  write_json(value, indent, 0, out);
  return out;
}

}  // namespace skein::jinja
