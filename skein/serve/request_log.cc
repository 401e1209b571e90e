#include "skein/serve/request_log.h"

#include <unistd.h>

#include <ctime>
#include <iomanip>
#include <sstream>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/serve/api_error.h"

namespace skein {
namespace {

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace

std::string log_line(LogKind kind, const LoggedRequest& request) {
  if (kind == LogKind::kNone) return "";
  if (kind == LogKind::kJson) {
    Json line = {{"time", utc_now()},         {"id", request.id},       {"remote", request.remote},
                 {"method", request.method},  {"route", request.route}, {"status", request.status},
                 {"seconds", request.seconds}};
    if (!request.model.empty()) line["model"] = request.model;
    if (!request.end.empty()) {
      line["end"] = request.end;
      line["prompt_tokens"] = request.prompt_tokens;
      line["generated_tokens"] = request.generated_tokens;
      line["reused_tokens"] = request.reused_tokens;
    }
    return json_text(line) + "\n";
  }
  std::ostringstream line;
  line << utc_now() << " " << request.remote << " " << request.method << " " << request.route << " " << request.status
       << " " << std::fixed << std::setprecision(3) << request.seconds << " s";
  if (!request.model.empty()) line << " " << request.model;
  if (!request.end.empty()) {
    line << " " << request.end << " " << request.prompt_tokens << "+" << request.generated_tokens << " tokens";
  }
  line << "\n";
  return line.str();
}

void write_log_line(const std::string& line) {
  // One call, so that lines of several threads stay whole; a log that cannot be written stops nothing.
  if (!line.empty()) [[maybe_unused]]
    const auto ignored = write(STDERR_FILENO, line.data(), line.size());
}

void log_event(LogKind kind, const std::string& sentence) {
  if (kind != LogKind::kJson) return log_info(sentence);
  write_log_line(json_text(Json{{"time", utc_now()}, {"event", sentence}}) + "\n");
}

}  // namespace skein
