// The renderer's expressions.
#include <cmath>

#include "skein/base/concat.h"
#include "skein/text/jinja/renderer.h"

namespace skein::jinja {
namespace {

using Kind = Expression::Kind;

Error no_operation(const std::string& op, const Value& left, const Value& right) {
  const Value& undefined = left.is_undefined() ? left : right;
  if (undefined.is_undefined()) return Error{concat("\"", printable(undefined.undefined_name()), "\" is undefined")};
  return Error{concat("\"", op, "\" between ", left.kind(), " and ", right.kind(), " means nothing")};
}

// Python's // and % round towards minus infinity.
std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  const std::int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Result<Value> integer_operation(const std::string& op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (op == "**") {
    if (b < 0) return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
    result = 1;
    for (std::int64_t i = 0; i < b && !overflow && result != 0 && (a != 1); ++i) {
      if (i > 64 && (a == -1 || a == 0)) break;
      overflow = __builtin_mul_overflow(result, a, &result);
    }
    if (a == -1) result = b % 2 == 0 ? 1 : -1;
  } else {
    if (b == 0) return Error{"a division by zero"};
    if (op == "/") return Value(static_cast<double>(a) / static_cast<double>(b));
    if (b == -1 && a == INT64_MIN) return Error{"a number is out of range"};
    result = op == "//" ? floor_divide(a, b) : a - floor_divide(a, b) * b;
  }
  if (overflow) return Error{"a number is out of range"};
  return Value(result);
}

Result<Value> number_operation(const std::string& op, const Value& left, const Value& right) {
  if (!left.is_float() && !right.is_float()) return integer_operation(op, left.integer(), right.integer());
  const double a = left.number(), b = right.number();
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") return Value(std::pow(a, b));
  if (b == 0) return Error{"a division by zero"};
  if (op == "/") return Value(a / b);
  return op == "//" ? Value(std::floor(a / b)) : Value(a - std::floor(a / b) * b);
}

Result<Value> operate(const std::string& op, const Value& left, const Value& right) {
  if (op == "~") {
    std::string text = left.text() + right.text();
    if (text.size() > kMaxTextBytes) return Error{"a text of more than 64 MiB"};
    return Value(std::move(text));
  }
  if (left.is_number() && right.is_number()) return number_operation(op, left, right);
  if (op == "+" && left.is_string() && right.is_string()) {
    if (left.string().size() + right.string().size() > kMaxTextBytes) return Error{"a text of more than 64 MiB"};
    return Value(left.string() + right.string());
  }
  if (op == "+" && left.is_list() && right.is_list()) {
    Value::List joined = left.list();
    if (joined.size() + right.list().size() > kMaxTextBytes / sizeof(Value)) return Error{"a list of too many items"};
    joined.insert(joined.end(), right.list().begin(), right.list().end());
    return Value(std::move(joined));
  }
  if (op == "*" && (left.is_string() || right.is_string())) {
    const Value& text = left.is_string() ? left : right;
    const Value& times = left.is_string() ? right : left;
    if (!times.is_integer() && !times.is_bool()) return no_operation(op, left, right);
    const std::int64_t count = std::max<std::int64_t>(0, times.integer());
    if (!text.string().empty() && count > static_cast<std::int64_t>(kMaxTextBytes / text.string().size())) {
      return Error{"a text of more than 64 MiB"};
    }
    std::string repeated;
    for (std::int64_t i = 0; i < count && !text.string().empty(); ++i) repeated += text.string();
    return Value(std::move(repeated));
  }
  return no_operation(op, left, right);
}

}  // namespace

Result<Value> Renderer::evaluate(const Expression& expression) {
  SKEIN_TRY(step(expression.line));
  const auto& parts = expression.parts;
  switch (expression.kind) {
    case Kind::kLiteral:
      return expression.literal;
    case Kind::kName: {
      const Value* found = look_up(expression.name);
      if (found != nullptr) return *found;
      static const Macro kFunction;  // stands for any of them: templates ask "is defined", and call by name
      return is_function(expression.name) ? Value(&kFunction) : Value(Value::Undefined{expression.name});
    }
    case Kind::kList: {
      Value::List items;
      for (const auto& part : parts) {
        SKEIN_ASSIGN(Value item, evaluate(*part));
        SKEIN_TRY(item.may_be_part());
        items.push_back(std::move(item));
      }
      return Value(std::move(items));
    }
    case Kind::kDict:
      return evaluate_dict(expression);
    case Kind::kNot: {
      SKEIN_ASSIGN(const Value value, evaluate(*parts[0]));
      return Value(!value.truth());
    }
    case Kind::kNegate: {
      SKEIN_ASSIGN(const Value value, evaluate(*parts[0]));
      if (!value.is_number()) return no_operation("-", Value(std::int64_t{0}), value);
      return value.is_float() ? Value(-value.number()) : Value(-value.integer());
    }
    case Kind::kBinary:
      return evaluate_binary(expression);
    case Kind::kCompare:
      return evaluate_compare(expression);
    case Kind::kIf: {
      SKEIN_ASSIGN(const Value condition, evaluate(*parts[1]));
      if (condition.truth()) return evaluate(*parts[0]);
      return parts[2] != nullptr ? evaluate(*parts[2]) : Result<Value>(Value());
    }
    case Kind::kAttribute:
      return evaluate_attribute(expression);
    case Kind::kItem: {
      SKEIN_ASSIGN(const Value object, evaluate(*parts[0]));
      SKEIN_ASSIGN(const Value index, evaluate(*parts[1]));
      return item_of(object, index);
    }
    case Kind::kSlice:
      return evaluate_slice(expression);
    case Kind::kCall:
      return evaluate_call(expression);
    case Kind::kFilter:
    case Kind::kTest: {
      SKEIN_ASSIGN(const Value value, evaluate(*parts[0]));
      SKEIN_ASSIGN(const Arguments arguments, evaluate_arguments(expression.arguments));
      if (expression.kind == Kind::kFilter) return apply_filter(expression.name, value, arguments);
      SKEIN_ASSIGN(const bool holds, apply_test(expression.name, value, arguments));
      return Value(holds);
    }
  }
  return Value();
}

Result<Value> Renderer::evaluate_binary(const Expression& expression) {
  SKEIN_ASSIGN(Value left, evaluate(*expression.parts[0]));
  const std::string& op = expression.name;
  if (op == "and" || op == "or") {  // the deciding operand itself, as in Python
    if (left.truth() == (op == "or")) return left;
    return evaluate(*expression.parts[1]);
  }
  SKEIN_ASSIGN(const Value right, evaluate(*expression.parts[1]));
  return operate(op, left, right);
}

Result<Value> Renderer::evaluate_compare(const Expression& expression) {
  SKEIN_ASSIGN(Value left, evaluate(*expression.parts[0]));
  for (std::size_t i = 0; i < expression.names.size(); ++i) {
    SKEIN_ASSIGN(Value right, evaluate(*expression.parts[i + 1]));
    const std::string& op = expression.names[i];
    bool holds = false;
    if (op == "==" || op == "!=") {
      holds = equal(left, right) == (op == "==");
    } else if (op == "in" || op == "not in") {
      Arguments container;
      container.positional.push_back(right);
      SKEIN_ASSIGN(const bool inside, apply_test("in", left, container));
      holds = inside == (op == "in");
    } else {
      const auto order = compare(left, right);
      if (!order) return no_operation(op, left, right);
      holds = op == "<" ? *order < 0 : op == "<=" ? *order <= 0 : op == ">" ? *order > 0 : *order >= 0;
    }
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Result<Value> Renderer::evaluate_attribute(const Expression& expression) {
  SKEIN_ASSIGN(const Value object, evaluate(*expression.parts[0]));
  if (object.is_undefined()) return Error{concat("\"", printable(object.undefined_name()), "\" is undefined")};
  const Value* member = object.is_dict() ? object.find(expression.name) : nullptr;
  return member != nullptr ? *member : Value(Value::Undefined{expression.name});
}

Result<Value> Renderer::evaluate_call(const Expression& expression) {
  const Expression& callee = *expression.parts[0];
  SKEIN_ASSIGN(const Arguments arguments, evaluate_arguments(expression.arguments));
  if (callee.kind == Kind::kAttribute) {
    SKEIN_ASSIGN(const Value object, evaluate(*callee.parts[0]));
    return call_method(object, callee.name, arguments);
  }
  if (callee.kind != Kind::kName) return Error{"what is called is neither a function nor a method"};
  const Value* found = look_up(callee.name);
  if (found == nullptr) return call_function(callee.name, arguments);
  if (!found->is_macro())
    return Error{concat("\"", printable(callee.name), "\" is ", found->kind(), " and cannot be called")};
  return call_macro(*found->macro(), arguments);
}

Result<Value> Renderer::evaluate_dict(const Expression& expression) {
  Value::Dict members;
  for (std::size_t i = 0; i < expression.parts.size(); i += 2) {
    SKEIN_ASSIGN(const Value key, evaluate(*expression.parts[i]));
    SKEIN_ASSIGN(Value value, evaluate(*expression.parts[i + 1]));
    SKEIN_TRY(value.may_be_part());
    if (!key.is_string()) return Error{concat("a key of a mapping is ", key.kind(), "; Skein has strings only")};
    std::erase_if(members, [&](const auto& member) { return member.first == key.string(); });
    members.emplace_back(key.string(), std::move(value));
  }
  return Value(std::move(members));
}

Result<Value> Renderer::evaluate_slice(const Expression& expression) {
  SKEIN_ASSIGN(const Value object, evaluate(*expression.parts[0]));
  Value bounds[3];
  const Value* given[3] = {};
  for (int i = 0; i < 3; ++i) {
    if (expression.parts[i + 1] == nullptr) continue;
    SKEIN_ASSIGN(bounds[i], evaluate(*expression.parts[i + 1]));
    given[i] = &bounds[i];
  }
  return slice_of(object, given[0], given[1], given[2]);
}

Result<Arguments> Renderer::evaluate_arguments(const std::vector<Argument>& arguments) {
  Arguments values;
  for (const Argument& argument : arguments) {
    SKEIN_ASSIGN(Value value, evaluate(*argument.value));
    if (argument.name.empty()) {
      values.positional.push_back(std::move(value));
    } else {
      values.named.emplace_back(argument.name, std::move(value));
    }
  }
  return values;
}

}  // namespace skein::jinja
