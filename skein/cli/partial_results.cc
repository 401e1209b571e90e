#include "skein/cli/partial_results.h"

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/cli/result_output.h"

namespace skein {
namespace {

std::string text_of(const std::vector<Json>& lines) {
  std::string text;
  for (const Json& line : lines) text += json_line(line) + "\n";
  return text;
}

std::string done_line(const std::string& task, const Json& summary) {
  return json_line({{"done", task}, {"summary", summary}}) + "\n";
}

}  // namespace

Result<std::unique_ptr<PartialResults>> PartialResults::begin(Env& env, const std::string& path, const Json& settings,
                                                              bool overwrite, Comm* comm) {
  std::unique_ptr<PartialResults> results(new PartialResults(env, path, settings, comm));
  SKEIN_TRY(results->agreed(results->writes() ? results->begin_file(overwrite) : Status()));
  if (!results->writes()) results->read_partial();  // as the first rank left it
  return results;
}

Status PartialResults::begin_file(bool overwrite) {
  if (env_.exists(path_) && !overwrite) {
    return Error{concat(path_, " exists already; give --overwrite to replace it")};
  }
  read_partial();
  // Written anew: without the torn end that a killed run may have left. Also an early look at whether this place takes
  // files.
  std::string text = text_of({{{"settings", settings_}}});
  for (const DoneTask& done : done_) text += text_of(done.lines) + done_line(done.task, done.summary);
  return write_text_atomically(env_, partial_path(), text);
}

// Lines of a task count once its summary is there.
void PartialResults::read_partial() {
  if (!env_.exists(partial_path())) return;
  bool same_settings = false;
  std::vector<Json> pending;
  const Status read = for_each_json_line(env_, partial_path(), [&](Json&& line, std::int64_t number) -> Status {
    if (number == 1) {
      same_settings = line == Json{{"settings", settings_}};
      return same_settings ? Status() : Error{"other settings"};
    }
    if (!line.contains("summary")) {
      pending.push_back(std::move(line));
      return {};
    }
    done_.push_back({line.value("done", ""), std::move(pending), line["summary"]});
    pending.clear();
    return {};
  });
  if (!writes()) return;
  if (!same_settings) {
    log_info(concat(partial_path(), " is of a run with other settings; starting anew"));
  } else if (!done_.empty()) {
    log_info(concat("going on from ", partial_path(), ": ", done_.size(), " tasks are done",
                    read.ok() ? "" : ", one was cut short"));
  }
}

const Json* PartialResults::summary_of(const std::string& task) const {
  for (const DoneTask& done : done_) {
    if (done.task == task) return &done.summary;
  }
  return nullptr;
}

const std::vector<Json>* PartialResults::lines_of(const std::string& task) const {
  for (const DoneTask& done : done_) {
    if (done.task == task) return &done.lines;
  }
  return nullptr;
}

Status PartialResults::add_task(const std::string& task, std::vector<Json> lines, const Json& summary) {
  SKEIN_TRY(agreed(writes() ? append_task(task, lines, summary) : Status()));
  done_.push_back({task, std::move(lines), summary});
  return {};
}

Status PartialResults::append_task(const std::string& task, const std::vector<Json>& lines, const Json& summary) {
  const std::string text = text_of(lines) + done_line(task, summary);
  SKEIN_ASSIGN(auto file, env_.open_for_append(partial_path()));
  SKEIN_TRY(file->append(std::as_bytes(std::span(text))));
  SKEIN_TRY(file->sync());
  return file->close();
}

Status PartialResults::finish() { return writes() ? write_file() : Status(); }

Status PartialResults::write_file() {
  std::string text;
  for (const DoneTask& done : done_) text += text_of(done.lines);
  SKEIN_TRY(write_text_atomically(env_, path_, text));
  return env_.remove_file(partial_path());
}

}  // namespace skein
