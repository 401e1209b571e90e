#include "skein/text/jinja/parser.h"

#include "skein/base/concat.h"
#include "skein/text/jinja/expression_parser.h"
#include "skein/text/jinja/lexer.h"

namespace skein::jinja {
namespace {

using Kind = Token::Kind;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : cursor_(std::move(tokens)), expressions_(cursor_) {}

  Result<Block> run() {
    SKEIN_ASSIGN(Block block, parse_block({}));
    return block;
  }

 private:
  Error fault(const std::string& what) const { return cursor_.fault(what); }

  // Statements up to a block tag named in `ends` (not consumed past its name), or to the end of the template.
  Result<Block> parse_block(const std::vector<std::string>& ends) {
    if (++depth_ > kMaxDepth) return fault(concat("blocks are nested deeper than ", kMaxDepth, " levels"));
    Block block;
    for (;;) {
      const Token token = cursor_.next();
      if (token.kind == Kind::kEnd) {
        if (!ends.empty()) return fault(concat("\"", ends.back(), "\" is missing"));
        break;
      }
      if (token.kind == Kind::kText) {
        Statement text{Statement::Kind::kText, token.line};
        text.text = token.text;
        block.push_back(std::move(text));
      } else if (token.kind == Kind::kOutputBegin) {
        Statement output{Statement::Kind::kOutput, token.line};
        SKEIN_ASSIGN(output.value, expressions_.parse_tuple());
        SKEIN_TRY(cursor_.expect(Kind::kOutputEnd, "}}"));
        block.push_back(std::move(output));
      } else {
        const Token& name = cursor_.peek();
        bool ended = false;
        for (const std::string& end : ends) ended = ended || (name.kind == Kind::kName && name.text == end);
        if (ended) break;
        SKEIN_ASSIGN(Statement statement, parse_statement());
        block.push_back(std::move(statement));
      }
    }
    --depth_;
    return block;
  }

  Status end_tag() { return cursor_.expect(Kind::kBlockEnd, "%}"); }
  Status end_block(const std::string& name) {
    SKEIN_TRY(cursor_.expect_name(name));
    return end_tag();
  }

  Result<Statement> parse_statement() {
    const Token name = cursor_.next();
    if (name.kind != Kind::kName) return fault("a block tag does not begin with a name");
    if (name.text == "if") return parse_if(name.line);
    if (name.text == "for") return parse_for(name.line);
    if (name.text == "set") return parse_set(name.line);
    if (name.text == "macro") return parse_macro(name.line);
    if (name.text == "break" || name.text == "continue") {
      SKEIN_TRY(end_tag());
      return Statement{name.text == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue, name.line};
    }
    if (name.text == "generation") {  // transformers' mark of the assistant's own text
      SKEIN_TRY(end_tag());
      Statement group{Statement::Kind::kGroup, name.line};
      SKEIN_ASSIGN(group.body, parse_block({"endgeneration"}));
      SKEIN_TRY(end_block("endgeneration"));
      return group;
    }
    return fault(concat("the block tag \"", printable(name.text),
                        "\" is not one Skein has (if, for, set, macro, break, continue, generation)"));
  }

  Result<Statement> parse_if(int line) {
    Statement statement{Statement::Kind::kIf, line};
    for (bool last = false; !last;) {
      SKEIN_ASSIGN(ExpressionPtr condition, expressions_.parse_tuple());
      SKEIN_TRY(end_tag());
      SKEIN_ASSIGN(Block body, parse_block({"elif", "else", "endif"}));
      statement.branches.emplace_back(std::move(condition), std::move(body));
      const std::string next = cursor_.next().text;
      if (next == "elif") continue;
      last = true;
      SKEIN_TRY(end_tag());
      if (next == "endif") break;
      SKEIN_ASSIGN(Block otherwise, parse_block({"endif"}));
      statement.branches.emplace_back(nullptr, std::move(otherwise));
      SKEIN_TRY(end_block("endif"));
    }
    return statement;
  }

  Result<Statement> parse_for(int line) {
    Statement statement{Statement::Kind::kFor, line};
    SKEIN_ASSIGN(statement.targets, parse_targets());
    SKEIN_TRY(cursor_.expect_name("in"));
    SKEIN_ASSIGN(statement.value, expressions_.parse_without_condition());
    if (cursor_.take_name("if")) {
      SKEIN_ASSIGN(statement.condition, expressions_.parse());
    }
    if (cursor_.peek().text == "recursive") return fault("recursive loops are not something Skein has");
    SKEIN_TRY(end_tag());
    SKEIN_ASSIGN(statement.body, parse_block({"else", "endfor"}));
    if (cursor_.next().text == "else") {
      SKEIN_TRY(end_tag());
      SKEIN_ASSIGN(statement.otherwise, parse_block({"endfor"}));
      cursor_.next();
    }
    SKEIN_TRY(end_tag());
    return statement;
  }

  Result<std::vector<std::string>> parse_targets() {
    std::vector<std::string> targets;
    const bool bracketed = cursor_.take_operator("(");
    do {
      SKEIN_ASSIGN(std::string name, cursor_.take_identifier());
      targets.push_back(std::move(name));
    } while (cursor_.take_operator(","));
    if (bracketed) SKEIN_TRY(cursor_.expect(Kind::kOperator, ")"));
    return targets;
  }

  Result<Statement> parse_set(int line) {
    Statement statement{Statement::Kind::kSet, line};
    SKEIN_ASSIGN(statement.targets, parse_targets());
    if (cursor_.take_operator(".")) {
      SKEIN_ASSIGN(std::string attribute, cursor_.take_identifier());
      statement.targets.push_back(std::move(attribute));
      statement.sets_attribute = true;
    }
    if (cursor_.take_operator("=")) {
      SKEIN_ASSIGN(statement.value, expressions_.parse_tuple());
      SKEIN_TRY(end_tag());
      return statement;
    }
    statement.kind = Statement::Kind::kSetBlock;
    if (statement.targets.size() != 1 || cursor_.peek().kind != Kind::kBlockEnd)
      return fault("\"set\" was expected to go on with =");
    SKEIN_TRY(end_tag());
    SKEIN_ASSIGN(statement.body, parse_block({"endset"}));
    SKEIN_TRY(end_block("endset"));
    return statement;
  }

  Result<Statement> parse_macro(int line) {
    Statement statement{Statement::Kind::kMacro, line};
    statement.macro = std::make_shared<Macro>();
    SKEIN_ASSIGN(statement.macro->name, cursor_.take_identifier());
    SKEIN_TRY(cursor_.expect(Kind::kOperator, "("));
    while (!cursor_.take_operator(")")) {
      Argument parameter;
      SKEIN_ASSIGN(parameter.name, cursor_.take_identifier());
      if (cursor_.take_operator("=")) {
        SKEIN_ASSIGN(parameter.value, expressions_.parse());
      }
      statement.macro->parameters.push_back(std::move(parameter));
      if (!cursor_.take_operator(",") && cursor_.peek().text != ")")
        return fault("a macro's parameters do not end with )");
    }
    SKEIN_TRY(end_tag());
    SKEIN_ASSIGN(statement.macro->body, parse_block({"endmacro"}));
    SKEIN_TRY(end_block("endmacro"));
    return statement;
  }

  TokenCursor cursor_;
  ExpressionParser expressions_;
  int depth_ = 0;
};

}  // namespace

Result<Block> parse(const std::string& source) {
  if (source.size() > kMaxSource)
    return Error{concat("it has ", source.size(), " bytes; at most ", kMaxSource, " are allowed")};
  SKEIN_ASSIGN(std::vector<Token> tokens, tokenize(source));
  return Parser(std::move(tokens)).run();
}

}  // namespace skein::jinja
