// A template's tokens to its parsed form. What Skein does not have (include, extends, filter and call blocks, ...) is
// refused by name.
#pragma once

#include <string>

#include "skein/text/jinja/syntax.h"

namespace skein::jinja {

// source: at most kMaxSource bytes, nested at most kMaxDepth levels.
Result<Block> parse(const std::string& source);

inline constexpr std::size_t kMaxSource = 1 << 20;
inline constexpr int kMaxDepth = 100;

}  // namespace skein::jinja
