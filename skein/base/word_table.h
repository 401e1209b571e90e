// Enumerations as users spell them: one table of words per enumeration, read in both directions.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "skein/base/check.h"
#include "skein/base/concat.h"
#include "skein/base/result.h"

namespace skein {

template <typename Value, std::size_t kCount>
using WordTable = std::array<std::pair<Value, std::string_view>, kCount>;

// The table must hold every value.
template <typename Value, std::size_t kCount>
std::string_view name_in(const WordTable<Value, kCount>& table, Value value) {
  for (const auto& [known, name] : table) {
    if (known == value) return name;
  }
  SKEIN_CHECK(false);
}

// An unknown word is a usage error that lists the known ones; `what` says what it should have been.
template <typename Value, std::size_t kCount>
Result<Value> value_in(const WordTable<Value, kCount>& table, std::string_view name, std::string_view what) {
  std::string known_names;
  for (const auto& [value, known] : table) {
    if (known == name) return value;
    known_names += concat(known_names.empty() ? "" : ", ", known);
  }
  return Error{concat("unknown ", what, " \"", printable(name), "\"; known: ", known_names), ErrorKind::kUsage};
}

}  // namespace skein
