// One line of DATA: text in, text out. Format: docs/formats/data.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/io/json.h"

namespace skein {

struct Turn {
  std::string role;
  std::string content;
};

struct Example {
  std::string input;
  std::string target;
  std::vector<std::string> choices;     // closed answers, target among them; empty: free text
  std::vector<std::string> references;  // accepted texts; empty: the target
  std::vector<Turn> messages;           // chat form: all turns but the last; the last is the target
  std::string id;                       // as given, or "FILE:LINE"
  std::string template_name;
  std::string task;    // as given, or the file's name without .jsonl(.gz)
  std::string metric;  // how it is scored (docs/formats/data.md); empty: by choices
  std::optional<std::string> separator;  // between input and target, where the file's format says so
};

// All examples of .jsonl and .jsonl.gz files, in order. A bad line (no target, target not among choices, wrong kinds)
// is an error with file and line; an empty file is an error.
Result<std::vector<Example>> read_examples(Env& env, const std::vector<std::string>& paths);

}  // namespace skein
