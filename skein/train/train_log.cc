#include "skein/train/train_log.h"

#include <sstream>

namespace skein {
namespace {

// The lines that a state after last_step knows of. Anything that is no whole line of this log ends it.
std::string lines_until(const std::string& text, std::int64_t last_step) {
  std::string kept;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line) && !lines.eof();) {
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) break;
    if (json["step"].get<std::int64_t>() > last_step) break;
    kept += line + "\n";
  }
  return kept;
}

}  // namespace

Result<std::unique_ptr<TrainLog>> TrainLog::open(Env& env, const std::string& path,
                                                 std::optional<std::int64_t> resumed_step) {
  std::string kept;
  if (resumed_step && env.exists(path)) {
    SKEIN_ASSIGN(const std::string text, read_text_file(env, path));
    kept = lines_until(text, *resumed_step);
  }
  SKEIN_TRY(write_text_atomically(env, path, kept));
  SKEIN_ASSIGN(auto file, env.open_for_append(path));
  return std::unique_ptr<TrainLog>(new TrainLog(std::move(file)));
}

Status TrainLog::append(const Json& line) {
  const std::string text = line.dump() + "\n";
  return file_->append(std::as_bytes(std::span(text)));
}

}  // namespace skein
