// A template's source cut into text and tokens, white space trimmed as chat templates want it: trim_blocks and
// lstrip_blocks on, and the "-" and "+" of tags.
#pragma once

#include <string>
#include <vector>

#include "skein/base/result.h"

namespace skein::jinja {

struct Token {
  enum class Kind {
    kText,
    kOutputBegin,
    kOutputEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd
  };
  Kind kind;
  std::string text;  // of a string: its value, escapes resolved
  int line;
};

Result<std::vector<Token>> tokenize(const std::string& source);

}  // namespace skein::jinja
