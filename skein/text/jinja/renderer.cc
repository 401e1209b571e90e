#include "skein/text/jinja/renderer.h"

#include <cmath>

#include "skein/base/concat.h"

namespace skein::jinja {
namespace {

constexpr std::int64_t kMaxSteps = 2'000'000;
constexpr int kMaxCalls = 50;

Error at_line(int line, const Error& error) {
  if (error.message.starts_with("line ")) return error;
  return Error{concat("line ", line, ": ", error.message), error.kind};
}

}  // namespace

Renderer::Renderer(const Value::Dict& variables) : scopes_(1) {
  for (const auto& [name, value] : variables) scopes_[0].insert_or_assign(name, value);
}

Result<std::string> Renderer::run(const Block& block) {
  SKEIN_ASSIGN([[maybe_unused]] const Flow flow, run_block(block));
  return std::move(out_);
}

Status Renderer::step(int line) {
  if (++steps_ > kMaxSteps) return Error{concat("line ", line, ": the template takes more than ", kMaxSteps, " steps")};
  return {};
}

Status Renderer::write(const std::string& text, int line) {
  bytes_ += text.size();
  if (bytes_ > kMaxTextBytes) return Error{concat("line ", line, ": the template writes more than 64 MiB")};
  out_ += text;
  return {};
}

const Value* Renderer::look_up(std::string_view name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto found = scope->find(name);
    if (found != scope->end()) return &found->second;
  }
  return nullptr;
}

Result<Renderer::Flow> Renderer::run_block(const Block& block) {
  for (const Statement& statement : block) {
    auto flow = run_statement(statement);
    if (!flow.ok()) return at_line(statement.line, flow.error());
    if (*flow != Flow::kOn) return *flow;
  }
  return Flow::kOn;
}

Result<Renderer::Flow> Renderer::run_statement(const Statement& statement) {
  SKEIN_TRY(step(statement.line));
  switch (statement.kind) {
    case Statement::Kind::kText:
      SKEIN_TRY(write(statement.text, statement.line));
      return Flow::kOn;
    case Statement::Kind::kOutput: {
      SKEIN_ASSIGN(const Value value, evaluate(*statement.value));
      SKEIN_TRY(write(value.text(), statement.line));
      return Flow::kOn;
    }
    case Statement::Kind::kIf:
      return run_if(statement);
    case Statement::Kind::kFor:
      return run_for(statement);
    case Statement::Kind::kSet:
      return run_set(statement);
    case Statement::Kind::kSetBlock: {
      SKEIN_ASSIGN(std::string text, capture(statement.body));
      scopes_.back().insert_or_assign(statement.targets[0], Value(std::move(text)));
      return Flow::kOn;
    }
    case Statement::Kind::kMacro:
      scopes_.back().insert_or_assign(statement.macro->name, Value(statement.macro.get()));
      return Flow::kOn;
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
    case Statement::Kind::kGroup:
      return run_block(statement.body);
  }
  return Flow::kOn;
}

Result<Renderer::Flow> Renderer::run_if(const Statement& statement) {
  for (const auto& [condition, body] : statement.branches) {
    if (condition != nullptr) {
      SKEIN_ASSIGN(const Value value, evaluate(*condition));
      if (!value.truth()) continue;
    }
    return run_block(body);
  }
  return Flow::kOn;
}

// Each round has a scope of its own: what it sets is gone in the next one, unless it sits in a namespace.
Result<Renderer::Flow> Renderer::run_for(const Statement& statement) {
  SKEIN_ASSIGN(const Value walked, evaluate(*statement.value));
  SKEIN_ASSIGN(const Value all, apply_filter("list", walked, {}));
  Value::List items;
  for (const Value& item : all.list()) {
    if (statement.condition != nullptr) {
      scopes_.emplace_back();
      SKEIN_TRY(bind(statement.targets, item));
      SKEIN_ASSIGN(const Value wanted, evaluate(*statement.condition));
      scopes_.pop_back();
      if (!wanted.truth()) continue;
    }
    items.push_back(item);
  }
  if (items.empty()) return run_block(statement.otherwise);
  const auto size = static_cast<std::int64_t>(items.size());
  for (std::int64_t i = 0; i < size; ++i) {
    SKEIN_TRY(step(statement.line));
    scopes_.emplace_back();
    Value::Dict loop = {{"index", i + 1}, {"index0", i},          {"first", i == 0},          {"last", i + 1 == size},
                        {"length", size}, {"revindex", size - i}, {"revindex0", size - i - 1}};
    loop.emplace_back("previtem", i > 0 ? items[i - 1] : Value(Value::Undefined{"loop.previtem"}));
    loop.emplace_back("nextitem", i + 1 < size ? items[i + 1] : Value(Value::Undefined{"loop.nextitem"}));
    scopes_.back().insert_or_assign("loop", Value(std::move(loop)));
    SKEIN_TRY(bind(statement.targets, items[i]));
    SKEIN_ASSIGN(const Flow flow, run_block(statement.body));
    scopes_.pop_back();
    if (flow == Flow::kBreak) break;
  }
  return Flow::kOn;
}

Result<Renderer::Flow> Renderer::run_set(const Statement& statement) {
  SKEIN_ASSIGN(Value value, evaluate(*statement.value));
  if (!statement.sets_attribute) {
    SKEIN_TRY(bind(statement.targets, value));
    return Flow::kOn;
  }
  const Value* found = look_up(statement.targets[0]);
  if (found == nullptr || !found->is_namespace()) {
    return Error{
        concat("\"", printable(statement.targets[0]), "\" is not a namespace, so its attributes cannot be set")};
  }
  Value holder = *found;  // shares the members
  SKEIN_TRY(holder.set_member(statement.targets[1], std::move(value)));
  return Flow::kOn;
}

Status Renderer::bind(const std::vector<std::string>& targets, const Value& value) {
  if (targets.size() == 1) {
    scopes_.back().insert_or_assign(targets[0], value);
    return {};
  }
  if (!value.is_list() || value.list().size() != targets.size()) {
    return Error{concat(value.kind(), " cannot be taken apart into ", targets.size(), " names")};
  }
  for (std::size_t i = 0; i < targets.size(); ++i) scopes_.back().insert_or_assign(targets[i], value.list()[i]);
  return {};
}

Result<std::string> Renderer::capture(const Block& block) {
  std::string before = std::move(out_);
  out_.clear();
  SKEIN_ASSIGN([[maybe_unused]] const Flow flow, run_block(block));
  std::swap(before, out_);
  return before;
}

// A macro sees the template's own names and its parameters, not those of its caller.
Result<Value> Renderer::call_macro(const Macro& macro, const Arguments& arguments) {
  if (++depth_ > kMaxCalls) return Error{concat("macros call each other more than ", kMaxCalls, " levels deep")};
  if (arguments.positional.size() > macro.parameters.size()) {
    return Error{concat("the macro \"", printable(macro.name), "\" takes ", macro.parameters.size(), " arguments")};
  }
  std::vector<Scope> callers(scopes_.begin() + 1, scopes_.end());
  scopes_.resize(1);
  scopes_.emplace_back();
  for (std::size_t i = 0; i < macro.parameters.size(); ++i) {
    const Argument& parameter = macro.parameters[i];
    Value value{Value::Undefined{parameter.name}};
    if (const Value* given = arguments.get(i, parameter.name)) {
      value = *given;
    } else if (parameter.value != nullptr) {
      SKEIN_ASSIGN(value, evaluate(*parameter.value));
    }
    scopes_.back().insert_or_assign(parameter.name, std::move(value));
  }
  SKEIN_ASSIGN(std::string text, capture(macro.body));
  scopes_.resize(1);
  scopes_.insert(scopes_.end(), std::make_move_iterator(callers.begin()), std::make_move_iterator(callers.end()));
  --depth_;
  return Value(std::move(text));
}

}  // namespace skein::jinja
