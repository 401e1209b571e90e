// One line on stderr for each request answered: what, how it ended, how long, how many tokens. Never a header, a body
// or a query, so that neither keys nor texts reach the log.
#pragma once

#include <cstdint>
#include <string>

namespace skein {

struct LoggedRequest {
  std::string id;
  std::string remote;
  std::string method;
  std::string route;  // of the table of routes, or "unknown": not what the client wrote
  int status = 0;
  double seconds = 0;
  std::string model;  // a served model's name, or empty
  std::string end;    // how an answer ended
  std::int64_t prompt_tokens = 0, generated_tokens = 0, reused_tokens = 0;
};

enum class LogKind { kNone, kText, kJson };

// Empty for kNone.
std::string log_line(LogKind kind, const LoggedRequest& request);
void write_log_line(const std::string& line);
// A sentence of the server itself, in the log's form.
void log_event(LogKind kind, const std::string& sentence);

}  // namespace skein
