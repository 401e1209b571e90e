// Expressions of a template: Jinja's grammar, by recursive descent, one function per level of precedence.
#pragma once

#include <string>
#include <vector>

#include "skein/text/jinja/lexer.h"
#include "skein/text/jinja/syntax.h"

namespace skein::jinja {

// Where the parser stands in the tokens.
class TokenCursor {
 public:
  explicit TokenCursor(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek() const { return tokens_[at_]; }
  const Token& next() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }  // the end stays
  bool is_operator(std::string_view text) const { return peek().kind == Token::Kind::kOperator && peek().text == text; }
  bool is_name(std::string_view text) const { return peek().kind == Token::Kind::kName && peek().text == text; }
  bool take_operator(std::string_view text) { return is_operator(text) && (++at_, true); }
  bool take_name(std::string_view text) { return is_name(text) && (++at_, true); }
  Result<std::string> take_identifier();
  Status expect(Token::Kind kind, std::string_view text);  // text: of an operator, or for the message
  Status expect_name(std::string_view text);
  Error fault(const std::string& what) const;

 private:
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
};

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenCursor& cursor) : cursor_(cursor) {}

  Result<ExpressionPtr> parse();                    // a if b else c
  Result<ExpressionPtr> parse_without_condition();  // what a for walks: its "if" is the loop's
  Result<ExpressionPtr> parse_tuple();              // a, b, c without brackets too

 private:
  Result<ExpressionPtr> parse_or();
  Result<ExpressionPtr> parse_and();
  Result<ExpressionPtr> parse_not();
  Result<ExpressionPtr> parse_compare();
  Result<ExpressionPtr> parse_sum();
  Result<ExpressionPtr> parse_concat();
  Result<ExpressionPtr> parse_product();
  Result<ExpressionPtr> parse_power();
  Result<ExpressionPtr> parse_unary(bool with_filter);
  Result<ExpressionPtr> parse_primary();
  Result<ExpressionPtr> parse_string();
  Result<ExpressionPtr> parse_brackets();
  Result<ExpressionPtr> parse_dict();
  Result<ExpressionPtr> parse_postfix(ExpressionPtr value);
  Result<ExpressionPtr> parse_item(ExpressionPtr value);
  Result<ExpressionPtr> parse_filters(ExpressionPtr value);
  Result<ExpressionPtr> parse_test(ExpressionPtr value);
  Result<std::vector<Argument>> parse_arguments();

  ExpressionPtr make(Expression::Kind kind) const;
  ExpressionPtr make(Expression::Kind kind, ExpressionPtr part) const;
  ExpressionPtr binary(std::string op, ExpressionPtr left, ExpressionPtr right) const;

  TokenCursor& cursor_;
  int depth_ = 0;
};

}  // namespace skein::jinja
