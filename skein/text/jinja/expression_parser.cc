#include "skein/text/jinja/expression_parser.h"

#include <charconv>

#include "skein/base/concat.h"
#include "skein/text/jinja/parser.h"

namespace skein::jinja {

using Kind = Expression::Kind;

Result<std::string> TokenCursor::take_identifier() {
  if (peek().kind != Token::Kind::kName)
    return fault(concat("found \"", printable(peek().text), "\" where a name was expected"));
  return next().text;
}

Status TokenCursor::expect(Token::Kind kind, std::string_view text) {
  const bool matches = peek().kind == kind && (kind != Token::Kind::kOperator || peek().text == text);
  if (!matches) return fault(concat("found \"", printable(peek().text), "\" where ", text, " was expected"));
  next();
  return {};
}

Status TokenCursor::expect_name(std::string_view text) {
  if (!take_name(text))
    return fault(concat("found \"", printable(peek().text), "\" where \"", text, "\" was expected"));
  return {};
}

Error TokenCursor::fault(const std::string& what) const { return Error{concat("line ", peek().line, ": ", what)}; }

ExpressionPtr ExpressionParser::make(Kind kind) const {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = cursor_.peek().line;
  return expression;
}

ExpressionPtr ExpressionParser::make(Kind kind, ExpressionPtr part) const {
  auto expression = make(kind);
  expression->parts.push_back(std::move(part));
  return expression;
}

ExpressionPtr ExpressionParser::binary(std::string op, ExpressionPtr left, ExpressionPtr right) const {
  auto expression = make(Kind::kBinary, std::move(left));
  expression->name = std::move(op);
  expression->parts.push_back(std::move(right));
  return expression;
}

Result<ExpressionPtr> ExpressionParser::parse() {
  if (++depth_ > kMaxDepth) return cursor_.fault(concat("an expression is nested deeper than ", kMaxDepth, " levels"));
  SKEIN_ASSIGN(ExpressionPtr value, parse_or());
  while (cursor_.take_name("if")) {
    auto choice = make(Kind::kIf, std::move(value));
    SKEIN_ASSIGN(ExpressionPtr condition, parse_or());
    choice->parts.push_back(std::move(condition));
    choice->parts.push_back(nullptr);
    if (cursor_.take_name("else")) {
      SKEIN_ASSIGN(choice->parts[2], parse());
    }
    value = std::move(choice);
  }
  --depth_;
  return value;
}

Result<ExpressionPtr> ExpressionParser::parse_without_condition() {
  SKEIN_ASSIGN(ExpressionPtr value, parse_or());
  if (!cursor_.is_operator(",")) return value;
  auto list = make(Kind::kList, std::move(value));
  while (cursor_.take_operator(",")) {
    SKEIN_ASSIGN(ExpressionPtr item, parse_or());
    list->parts.push_back(std::move(item));
  }
  return list;
}

Result<ExpressionPtr> ExpressionParser::parse_tuple() {
  SKEIN_ASSIGN(ExpressionPtr value, parse());
  if (!cursor_.is_operator(",")) return value;
  auto list = make(Kind::kList, std::move(value));
  while (cursor_.take_operator(",")) {
    SKEIN_ASSIGN(ExpressionPtr item, parse());
    list->parts.push_back(std::move(item));
  }
  return list;
}

Result<ExpressionPtr> ExpressionParser::parse_or() {
  SKEIN_ASSIGN(ExpressionPtr left, parse_and());
  while (cursor_.take_name("or")) {
    SKEIN_ASSIGN(ExpressionPtr right, parse_and());
    left = binary("or", std::move(left), std::move(right));
  }
  return left;
}

Result<ExpressionPtr> ExpressionParser::parse_and() {
  SKEIN_ASSIGN(ExpressionPtr left, parse_not());
  while (cursor_.take_name("and")) {
    SKEIN_ASSIGN(ExpressionPtr right, parse_not());
    left = binary("and", std::move(left), std::move(right));
  }
  return left;
}

Result<ExpressionPtr> ExpressionParser::parse_not() {
  int negations = 0;
  while (cursor_.take_name("not")) ++negations;
  SKEIN_ASSIGN(ExpressionPtr value, parse_compare());
  if (negations == 0) return value;
  value = make(Kind::kNot, std::move(value));
  if (negations % 2 == 0) value = make(Kind::kNot, std::move(value));
  return value;
}

Result<ExpressionPtr> ExpressionParser::parse_compare() {
  SKEIN_ASSIGN(ExpressionPtr left, parse_sum());
  ExpressionPtr chain;
  for (;;) {
    std::string op;
    for (const char* const candidate : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (op.empty() && cursor_.take_operator(candidate)) op = candidate;
    }
    if (op.empty() && cursor_.take_name("in")) op = "in";
    if (op.empty() && cursor_.is_name("not")) {  // "not" cannot follow an operand otherwise
      cursor_.next();
      SKEIN_TRY(cursor_.expect_name("in"));
      op = "not in";
    }
    if (op.empty()) break;
    if (chain == nullptr) chain = make(Kind::kCompare, std::move(left));
    SKEIN_ASSIGN(ExpressionPtr right, parse_sum());
    chain->names.push_back(std::move(op));
    chain->parts.push_back(std::move(right));
  }
  return chain != nullptr ? std::move(chain) : std::move(left);
}

Result<ExpressionPtr> ExpressionParser::parse_sum() {
  SKEIN_ASSIGN(ExpressionPtr left, parse_concat());
  while (cursor_.is_operator("+") || cursor_.is_operator("-")) {
    std::string op = cursor_.next().text;
    SKEIN_ASSIGN(ExpressionPtr right, parse_concat());
    left = binary(std::move(op), std::move(left), std::move(right));
  }
  return left;
}

Result<ExpressionPtr> ExpressionParser::parse_concat() {
  SKEIN_ASSIGN(ExpressionPtr left, parse_product());
  while (cursor_.take_operator("~")) {
    SKEIN_ASSIGN(ExpressionPtr right, parse_product());
    left = binary("~", std::move(left), std::move(right));
  }
  return left;
}

Result<ExpressionPtr> ExpressionParser::parse_product() {
  SKEIN_ASSIGN(ExpressionPtr left, parse_power());
  while (cursor_.is_operator("*") || cursor_.is_operator("/") || cursor_.is_operator("//") ||
         cursor_.is_operator("%")) {
    std::string op = cursor_.next().text;
    SKEIN_ASSIGN(ExpressionPtr right, parse_power());
    left = binary(std::move(op), std::move(left), std::move(right));
  }
  return left;
}

Result<ExpressionPtr> ExpressionParser::parse_power() {
  SKEIN_ASSIGN(ExpressionPtr left, parse_unary(true));
  while (cursor_.take_operator("**")) {
    SKEIN_ASSIGN(ExpressionPtr right, parse_unary(true));
    left = binary("**", std::move(left), std::move(right));
  }
  return left;
}

// A sign binds tighter than a filter: -1|abs is (-1)|abs.
Result<ExpressionPtr> ExpressionParser::parse_unary(bool with_filter) {
  if (++depth_ > kMaxDepth) return cursor_.fault(concat("an expression is nested deeper than ", kMaxDepth, " levels"));
  ExpressionPtr value;
  if (cursor_.take_operator("-")) {
    SKEIN_ASSIGN(ExpressionPtr inner, parse_unary(false));
    value = make(Kind::kNegate, std::move(inner));
  } else if (cursor_.take_operator("+")) {
    SKEIN_ASSIGN(value, parse_unary(false));
  } else {
    SKEIN_ASSIGN(value, parse_primary());
  }
  SKEIN_ASSIGN(value, parse_postfix(std::move(value)));
  if (with_filter) {
    SKEIN_ASSIGN(value, parse_filters(std::move(value)));
  }
  --depth_;
  return value;
}

Result<ExpressionPtr> ExpressionParser::parse_primary() {
  const Token token = cursor_.peek();
  if (token.kind == Token::Kind::kString) return parse_string();
  auto literal = make(Kind::kLiteral);
  if (token.kind == Token::Kind::kName) {
    cursor_.next();
    if (token.text == "true" || token.text == "True") {
      literal->literal = Value(true);
    } else if (token.text == "false" || token.text == "False") {
      literal->literal = Value(false);
    } else if (token.text == "none" || token.text == "None") {
      literal->literal = Value(Value::None{});
    } else {
      literal->kind = Kind::kName;
      literal->name = token.text;
    }
    return literal;
  }
  if (token.kind == Token::Kind::kInteger || token.kind == Token::Kind::kFloat) {
    cursor_.next();
    const char* const end = token.text.data() + token.text.size();
    if (token.kind == Token::Kind::kInteger) {
      std::int64_t value = 0;
      std::from_chars(token.text.data(), end, value);
      literal->literal = Value(value);
    } else {
      double value = 0;
      std::from_chars(token.text.data(), end, value);
      literal->literal = Value(value);
    }
    return literal;
  }
  if (cursor_.is_operator("{")) return parse_dict();
  if (cursor_.is_operator("(") || cursor_.is_operator("[")) return parse_brackets();
  return cursor_.fault(concat("found \"", printable(token.text), "\" where a value was expected"));
}

Result<ExpressionPtr> ExpressionParser::parse_string() {
  auto literal = make(Kind::kLiteral);
  std::string text;
  while (cursor_.peek().kind == Token::Kind::kString) text += cursor_.next().text;
  literal->literal = Value(std::move(text));
  return literal;
}

// (a), (a, b), (), [a, b].
Result<ExpressionPtr> ExpressionParser::parse_brackets() {
  const bool round = cursor_.next().text == "(";
  const char* const close = round ? ")" : "]";
  auto list = make(Kind::kList);
  bool comma = false;
  while (!cursor_.take_operator(close)) {
    if (!list->parts.empty() && !comma)
      return cursor_.fault(concat("found \"", printable(cursor_.peek().text), "\" where ", close, " was expected"));
    SKEIN_ASSIGN(ExpressionPtr item, parse());
    list->parts.push_back(std::move(item));
    comma = cursor_.take_operator(",");
  }
  if (round && !comma && list->parts.size() == 1) return std::move(list->parts[0]);
  return list;
}

Result<ExpressionPtr> ExpressionParser::parse_dict() {
  auto dict = make(Kind::kDict);
  cursor_.next();
  while (!cursor_.take_operator("}")) {
    SKEIN_ASSIGN(ExpressionPtr key, parse());
    SKEIN_TRY(cursor_.expect(Token::Kind::kOperator, ":"));
    SKEIN_ASSIGN(ExpressionPtr value, parse());
    dict->parts.push_back(std::move(key));
    dict->parts.push_back(std::move(value));
    if (!cursor_.take_operator(",") && !cursor_.is_operator("}")) return cursor_.fault("a mapping does not end with }");
  }
  return dict;
}

Result<ExpressionPtr> ExpressionParser::parse_postfix(ExpressionPtr value) {
  for (;;) {
    if (cursor_.take_operator(".")) {
      auto attribute = make(Kind::kAttribute, std::move(value));
      if (cursor_.peek().kind == Token::Kind::kInteger)
        return cursor_.fault("an index after a point is not something Skein has");
      SKEIN_ASSIGN(attribute->name, cursor_.take_identifier());
      value = std::move(attribute);
    } else if (cursor_.take_operator("[")) {
      SKEIN_ASSIGN(value, parse_item(std::move(value)));
    } else if (cursor_.is_operator("(")) {
      auto call = make(Kind::kCall, std::move(value));
      SKEIN_ASSIGN(call->arguments, parse_arguments());
      value = std::move(call);
    } else {
      return value;
    }
  }
}

// After "[": an index, or a slice whose parts may be missing.
Result<ExpressionPtr> ExpressionParser::parse_item(ExpressionPtr value) {
  std::vector<ExpressionPtr> bounds;
  bool slice = false;
  ExpressionPtr bound;
  while (!cursor_.take_operator("]")) {
    if (cursor_.take_operator(":")) {
      slice = true;
      bounds.push_back(std::move(bound));
    } else if (bound == nullptr) {
      SKEIN_ASSIGN(bound, parse());
    } else {
      return cursor_.fault("an index does not end with ]");
    }
  }
  if (!slice && bound == nullptr) return cursor_.fault("an index is empty");
  auto item = make(slice ? Kind::kSlice : Kind::kItem, std::move(value));
  bounds.push_back(std::move(bound));
  if (bounds.size() > 3) return cursor_.fault("a slice has more than three parts");
  for (ExpressionPtr& part : bounds) item->parts.push_back(std::move(part));
  if (slice) item->parts.resize(4);
  return item;
}

Result<ExpressionPtr> ExpressionParser::parse_filters(ExpressionPtr value) {
  for (;;) {
    if (cursor_.take_operator("|")) {
      auto filter = make(Kind::kFilter, std::move(value));
      SKEIN_ASSIGN(filter->name, cursor_.take_identifier());
      if (cursor_.is_operator("(")) {
        SKEIN_ASSIGN(filter->arguments, parse_arguments());
      }
      value = std::move(filter);
    } else if (cursor_.take_name("is")) {
      SKEIN_ASSIGN(value, parse_test(std::move(value)));
    } else if (cursor_.is_operator("(")) {
      auto call = make(Kind::kCall, std::move(value));
      SKEIN_ASSIGN(call->arguments, parse_arguments());
      value = std::move(call);
    } else {
      return value;
    }
  }
}

Result<ExpressionPtr> ExpressionParser::parse_test(ExpressionPtr value) {
  const bool negated = cursor_.take_name("not");
  auto test = make(Kind::kTest, std::move(value));
  SKEIN_ASSIGN(test->name, cursor_.take_identifier());
  const Token& next = cursor_.peek();
  const bool word = next.kind == Token::Kind::kName && next.text != "else" && next.text != "or" && next.text != "and" &&
                    next.text != "if" && next.text != "is" && next.text != "in" && next.text != "not";
  const bool value_follows = word || next.kind == Token::Kind::kString || next.kind == Token::Kind::kInteger ||
                             next.kind == Token::Kind::kFloat || cursor_.is_operator("[") || cursor_.is_operator("{");
  if (cursor_.is_operator("(")) {
    SKEIN_ASSIGN(test->arguments, parse_arguments());
  } else if (value_follows) {
    SKEIN_ASSIGN(ExpressionPtr argument, parse_primary());
    SKEIN_ASSIGN(argument, parse_postfix(std::move(argument)));
    test->arguments.push_back({"", std::move(argument)});
  }
  return negated ? make(Kind::kNot, std::move(test)) : std::move(test);
}

Result<std::vector<Argument>> ExpressionParser::parse_arguments() {
  SKEIN_TRY(cursor_.expect(Token::Kind::kOperator, "("));
  std::vector<Argument> arguments;
  while (!cursor_.take_operator(")")) {
    if (cursor_.is_operator("*") || cursor_.is_operator("**"))
      return cursor_.fault("* and ** arguments are not something Skein has");
    Argument argument;
    SKEIN_ASSIGN(argument.value, parse());
    if (argument.value->kind == Kind::kName && cursor_.take_operator("=")) {
      argument.name = argument.value->name;
      SKEIN_ASSIGN(argument.value, parse());
    }
    arguments.push_back(std::move(argument));
    if (!cursor_.take_operator(",") && !cursor_.is_operator(")")) return cursor_.fault("arguments do not end with )");
  }
  return arguments;
}

}  // namespace skein::jinja
