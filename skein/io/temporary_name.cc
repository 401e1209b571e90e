#include "skein/io/temporary_name.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <mutex>
#include <set>

#include "skein/base/concat.h"

namespace skein {
namespace {

std::mutex names_mutex;
long names_made = 0;

std::set<std::string>& names_in_use() {
  static std::set<std::string> names;
  return names;
}

std::string prefix_for(const std::string& final_path) { return concat(".", base_name(final_path), ".skein-tmp-"); }

// True if the process that made the name `prefix`PID-N is gone, or is this one and has done with it.
bool is_left_over(const std::string& path, const std::string& name, std::size_t prefix_size) {
  long owner = 0;
  const char* begin = name.data() + prefix_size;
  const auto [end, failure] = std::from_chars(begin, name.data() + name.size(), owner);
  if (failure != std::errc() || end == begin || *end != '-' || owner <= 0) return false;  // not a name of ours
  if (owner == ::getpid()) {
    const std::lock_guard lock(names_mutex);
    return !names_in_use().contains(path);
  }
  return ::kill(static_cast<pid_t>(owner), 0) != 0 && errno == ESRCH;
}

}  // namespace

TemporaryName::TemporaryName(const std::string& final_path) {
  const std::lock_guard lock(names_mutex);
  path_ = join_path(parent_folder(final_path), concat(prefix_for(final_path), ::getpid(), "-", ++names_made));
  names_in_use().insert(path_);
}

TemporaryName::~TemporaryName() {
  const std::lock_guard lock(names_mutex);
  names_in_use().erase(path_);
}

std::string aside_path(const std::string& final_path) {
  return join_path(parent_folder(final_path), concat(".", base_name(final_path), ".skein-old"));
}

void remove_leftovers(Env& env, const std::string& final_path) {
  const std::string folder = parent_folder(final_path);
  const std::string prefix = prefix_for(final_path);
  const auto names = env.list(folder);
  if (!names.ok()) return;
  for (const auto& name : *names) {
    const std::string path = join_path(folder, name);
    if (name.starts_with(prefix) && is_left_over(path, name, prefix.size())) (void)env.remove_tree(path);
  }
}

}  // namespace skein
