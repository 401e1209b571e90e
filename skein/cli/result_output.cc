#include "skein/cli/result_output.h"

#include <cstdio>

namespace skein {
namespace {

std::string dumped(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

// A failed write shows when main flushes stdout.
void print_text(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }
void print_json(const Json& document) { print_text(dumped(document, 2) + "\n"); }
void print_json_line(const Json& line) { print_text(json_line(line) + "\n"); }
std::string json_line(const Json& line) { return dumped(line, -1); }

}  // namespace skein
