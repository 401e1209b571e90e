// YAML documents as plain trees with the line of every node: libyaml's event parser behind bounds.
//
// What a recipe needs and no more: scalars, lists, mappings with scalar keys, anchors, aliases and merge keys ("<<").
// Every alias is a copy that counts towards the bound on nodes, so that a bomb of aliases ends as an error. Explicit
// tags other than YAML's own scalar ones are errors: nothing is ever constructed.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "skein/base/result.h"

namespace skein {

struct YamlMember;

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMapping };
  Kind kind = Kind::kNull;
  int line = 0;                     // from 1
  std::string text;                 // of a scalar, unquoted
  bool is_quoted = false;           // "yes" in quotes is a string, yes without is true
  std::vector<YamlNode> items;      // of a list
  std::vector<YamlMember> members;  // of a mapping, in file order, keys unique

  bool is_null() const { return kind == Kind::kNull; }
  bool is_scalar() const { return kind == Kind::kScalar; }
  bool is_list() const { return kind == Kind::kList; }
  bool is_mapping() const { return kind == Kind::kMapping; }
  const YamlNode* find(std::string_view key) const;  // a mapping's member; null if absent
};

struct YamlMember {
  std::string key;
  int key_line = 0;
  YamlNode value;
};

struct YamlLimits {
  std::size_t max_bytes = 4 << 20;
  std::size_t max_nodes = 200'000;  // aliases counted as the nodes they stand for
  std::size_t max_depth = 64;
};

// All documents of a text ("---" between them); empty ones are left out. where: for messages.
Result<std::vector<YamlNode>> parse_yaml(const std::string& text, const std::string& where,
                                         const YamlLimits& limits = {});

// "recipe.yml, line 12".
std::string yaml_place(const std::string& where, int line);
// "a list", "a mapping", "the word 'abc'": what a node is, for messages.
std::string yaml_description(const YamlNode& node);

// An unquoted YAML 1.1 boolean (true, yes, on, ...); nothing for other nodes.
std::optional<bool> yaml_bool(const YamlNode& node);
// A finite number; quoted ones and exponents without a point ("1e-4") count too. Nothing for other nodes.
std::optional<double> yaml_number(const YamlNode& node);
std::optional<long long> yaml_integer(const YamlNode& node);

}  // namespace skein
