// The parsed form of a template. Plain data: the parser fills it, the renderer walks it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "skein/text/jinja/value.h"

namespace skein::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Argument {
  std::string name;  // empty: by position
  ExpressionPtr value;
};

struct Expression {
  enum class Kind {
    kLiteral,    // literal
    kName,       // name
    kList,       // parts; also tuples
    kDict,       // parts: key, value, key, value, ...
    kNot,        // parts[0]
    kNegate,     // parts[0]
    kBinary,     // parts[0] name parts[1]: + - * / // % ** ~ and or
    kCompare,    // parts[0] names[0] parts[1] names[1] parts[2] ...: == != < <= > >= in "not in"
    kIf,         // parts: value, condition, otherwise (may be null)
    kAttribute,  // parts[0].name
    kItem,       // parts[0][parts[1]]
    kSlice,      // parts[0][parts[1]:parts[2]:parts[3]], each may be null
    kCall,       // parts[0](arguments)
    kFilter,     // parts[0] | name(arguments)
    kTest,       // parts[0] is name(arguments)
  };
  Kind kind;
  int line = 0;
  std::string name;
  std::vector<std::string> names;
  Value literal;
  std::vector<ExpressionPtr> parts;
  std::vector<Argument> arguments;
};

struct Statement;
using Block = std::vector<Statement>;

struct Macro {
  std::string name;
  std::vector<Argument> parameters;  // value: the default, or null
  Block body;
};

struct Statement {
  enum class Kind { kText, kOutput, kIf, kFor, kSet, kSetBlock, kMacro, kBreak, kContinue, kGroup };
  Kind kind;
  int line = 0;
  std::string text;                  // kText
  std::vector<std::string> targets;  // kFor, kSet: names; for a namespace's attribute {object, attribute}
  bool sets_attribute = false;
  ExpressionPtr value;                                    // kOutput, kSet; kFor: what is walked
  ExpressionPtr condition;                                // kFor: "if"; null: none
  std::vector<std::pair<ExpressionPtr, Block>> branches;  // kIf; a null condition: else
  Block body, otherwise;                                  // kFor, kSetBlock, kGroup (plain parts in between)
  std::shared_ptr<Macro> macro;                           // kMacro
};

}  // namespace skein::jinja
