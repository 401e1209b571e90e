// JSON documents: nlohmann::json behind a depth limit and errors that name file, line and what was expected.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "skein/base/result.h"
#include "skein/io/env.h"

namespace skein {

using Json = nlohmann::ordered_json;  // keeps the order of keys: configs are written back as they came

// Parses a whole document. Depth at most 128, no duplicate keys, valid UTF-8. where: for messages.
Result<Json> parse_json(const std::string& text, const std::string& where);
Result<Json> read_json_file(Env& env, const std::string& path);

// Typed fields of an object; absent or null gives `otherwise`, another kind is an error naming `where` and the key.
Result<std::int64_t> json_integer(const Json& object, const std::string& key, std::optional<std::int64_t> otherwise,
                                  const std::string& where);
Result<double> json_number(const Json& object, const std::string& key, std::optional<double> otherwise,
                           const std::string& where);
Result<bool> json_bool(const Json& object, const std::string& key, std::optional<bool> otherwise,
                       const std::string& where);
Result<std::string> json_string(const Json& object, const std::string& key, std::optional<std::string> otherwise,
                                const std::string& where);

// Calls on_line(object, line_number) for each non-blank line of a .jsonl or .jsonl.gz file; stops at the first error.
// Line numbers start at 1. A line is at most 64 MiB.
Status for_each_json_line(Env& env, const std::string& path,
                          const std::function<Status(Json&&, std::int64_t)>& on_line);

}  // namespace skein
