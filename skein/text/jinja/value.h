// Values of a template, with Python's rules: what is true, what is equal, how it prints.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "skein/base/result.h"

namespace skein::jinja {

struct Macro;  // syntax.h

class Value {
 public:
  using List = std::vector<Value>;
  using Dict = std::vector<std::pair<std::string, Value>>;  // in the order of insertion
  struct Undefined {
    std::string name;  // for messages
  };
  struct None {};

  Value() : value_(Undefined{}) {}
  Value(None) : value_(None{}) {}                               // NOLINT: implicit on purpose
  Value(Undefined undefined) : value_(std::move(undefined)) {}  // NOLINT
  Value(bool value) : value_(value) {}                          // NOLINT
  Value(std::int64_t value) : value_(value) {}                  // NOLINT
  Value(double value) : value_(value) {}                        // NOLINT
  Value(std::string value) : value_(std::move(value)) {}        // NOLINT
  Value(const char* value) : value_(std::string(value)) {}      // NOLINT
  Value(List value);                                            // NOLINT
  Value(Dict value);                                            // NOLINT
  Value(const Macro* macro) : value_(macro) {}                  // NOLINT

  bool is_undefined() const { return std::holds_alternative<Undefined>(value_); }
  bool is_none() const { return std::holds_alternative<None>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_integer() const { return std::holds_alternative<std::int64_t>(value_); }
  bool is_float() const { return std::holds_alternative<double>(value_); }
  bool is_number() const { return is_bool() || is_integer() || is_float(); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_list() const { return std::holds_alternative<std::shared_ptr<Node<List>>>(value_); }
  bool is_dict() const { return std::holds_alternative<std::shared_ptr<Node<Dict>>>(value_); }
  bool is_macro() const { return std::holds_alternative<const Macro*>(value_); }

  // Each requires the kind.
  const std::string& string() const { return std::get<std::string>(value_); }
  const List& list() const { return std::get<std::shared_ptr<Node<List>>>(value_)->members; }
  const Dict& dict() const { return std::get<std::shared_ptr<Node<Dict>>>(value_)->members; }
  const Macro* macro() const { return std::get<const Macro*>(value_); }
  const std::string& undefined_name() const { return std::get<Undefined>(value_).name; }
  std::int64_t integer() const;  // of a bool or an integer
  double number() const;         // of any number

  // A dict whose members can be set, seen by all copies. It never becomes part of another value (may_be_part), so
  // values have no cycles.
  static Value make_namespace(Dict members);
  bool is_namespace() const;
  Status set_member(const std::string& name, Value value);  // of a namespace

  // Whether this may be put into a list, mapping or namespace: no namespace, and not nested too deep.
  Status may_be_part() const;

  // The member of a dict; null if there is none.
  const Value* find(std::string_view key) const;

  bool truth() const;
  // Python's str() and repr(); undefined is empty. Cut off soon after kMaxTextBytes: shared parts can make a small
  // value print without end.
  std::string text() const;
  std::string representation() const;
  std::string_view kind() const;  // for messages: "a string"

 private:
  template <typename Members>
  struct Node {
    Members members;
    int depth = 1;  // levels of lists and mappings, this one counted
    bool is_namespace = false;
  };
  int depth() const;

  std::variant<Undefined, None, bool, std::int64_t, double, std::string, std::shared_ptr<Node<List>>,
               std::shared_ptr<Node<Dict>>, const Macro*>
      value_;
};

inline constexpr std::size_t kMaxTextBytes = 64 << 20;  // of one string that a template makes
inline constexpr int kMaxValueDepth = 100;

// Values that need more than a million comparisons count as different.
bool equal(const Value& a, const Value& b);
// Negative, zero, positive; nothing when Python would not order them.
std::optional<int> compare(const Value& a, const Value& b);

// Python's json.dumps without escapes for characters beyond ASCII. indent: spaces per level; negative: one line. Cut
// off soon after kMaxTextBytes.
std::string to_json(const Value& value, int indent);

}  // namespace skein::jinja
