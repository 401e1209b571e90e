// Walks a parsed template.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "skein/text/jinja/builtins.h"
#include "skein/text/jinja/syntax.h"

namespace skein::jinja {

class Renderer {
 public:
  explicit Renderer(const Value::Dict& variables);
  Result<std::string> run(const Block& block);

 private:
  enum class Flow { kOn, kBreak, kContinue };
  using Scope = std::map<std::string, Value, std::less<>>;

  Result<Flow> run_block(const Block& block);
  Result<Flow> run_statement(const Statement& statement);
  Result<Flow> run_if(const Statement& statement);
  Result<Flow> run_for(const Statement& statement);
  Result<Flow> run_set(const Statement& statement);
  Status bind(const std::vector<std::string>& targets, const Value& value);
  Result<std::string> capture(const Block& block);
  Result<Value> call_macro(const Macro& macro, const Arguments& arguments);

  Result<Value> evaluate(const Expression& expression);
  Result<Value> evaluate_binary(const Expression& expression);
  Result<Value> evaluate_compare(const Expression& expression);
  Result<Value> evaluate_attribute(const Expression& expression);
  Result<Value> evaluate_call(const Expression& expression);
  Result<Value> evaluate_dict(const Expression& expression);
  Result<Value> evaluate_slice(const Expression& expression);
  Result<Arguments> evaluate_arguments(const std::vector<Argument>& arguments);
  const Value* look_up(std::string_view name) const;
  Status step(int line);
  Status write(const std::string& text, int line);

  std::vector<Scope> scopes_;  // the template's own first
  std::string out_;
  std::size_t bytes_ = 0;  // written in all, captured text included
  std::int64_t steps_ = 0;
  int depth_ = 0;
};

}  // namespace skein::jinja
