#include "skein/cli/child_run.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

#include "skein/base/check.h"
#include "skein/base/concat.h"
#include "skein/base/interrupt.h"

namespace skein {

// In memory.
class Capture {
 public:
  explicit Capture(const char* name) : file_(memfd_create(name, MFD_CLOEXEC)) {}
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  ~Capture() {
    if (file_ >= 0) ::close(file_);
  }
  int file() const { return file_; }
  // The last bytes of it, at most so many.
  std::string text(off_t most) const {
    const off_t size = std::max<off_t>(0, ::lseek(file_, 0, SEEK_END));
    std::string bytes(static_cast<std::size_t>(std::min(size, most)), '\0');
    const ssize_t got = ::pread(file_, bytes.data(), bytes.size(), size - static_cast<off_t>(bytes.size()));
    bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return bytes;
  }

 private:
  int file_;
};

namespace {

constexpr off_t kLastWords = 2000;  // bytes of stderr in messages

// A line of /proc/CHILD/status that tells KiB; 0: the child has ended.
std::uint64_t status_bytes(pid_t child, std::string_view key) {
  std::ifstream status(concat("/proc/", child, "/status"));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key)) return std::strtoull(line.c_str() + key.size(), nullptr, 10) * 1024;
  }
  return 0;
}

// Reads the peak again and again, since it is gone with the process. (The maximum that wait4 tells counts this
// process's own pages, which the child shared until its exec.)
std::uint64_t watch(pid_t child) {
  constexpr int kMilliseconds = 3;
  std::uint64_t peak = 0;
  pollfd ended{static_cast<int>(::syscall(SYS_pidfd_open, child, 0)), POLLIN, 0};
  if (ended.fd < 0) return 0;  // an old kernel: no figure
  do {
    peak = std::max(peak, status_bytes(child, "VmHWM:"));
  } while (::poll(&ended, 1, kMilliseconds) == 0);
  ::close(ended.fd);
  return peak;
}

std::vector<std::string> environment_with(const Environment& extra) {
  std::vector<std::string> lines;
  for (char** line = environ; *line != nullptr; ++line) {
    const std::string_view text = *line;
    const auto replaces = [&](const auto& entry) { return text.starts_with(entry.first + "="); };
    if (std::none_of(extra.begin(), extra.end(), replaces)) lines.emplace_back(text);
  }
  for (const auto& [name, value] : extra) lines.push_back(concat(name, "=", value));
  return lines;
}

std::vector<char*> pointers(std::vector<std::string>& lines) {
  std::vector<char*> pointers;
  for (auto& line : lines) pointers.push_back(line.data());
  pointers.push_back(nullptr);
  return pointers;
}

// out, err: files that stdout and stderr go to; -1: nowhere.
Result<pid_t> spawn(const std::vector<std::string>& words, const Environment& extra, int out, int err) {
  SKEIN_CHECK(!words.empty());
  std::vector<std::string> arguments = words, lines = environment_with(extra);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  const auto lead = [&](int file, int to) {
    if (file >= 0) posix_spawn_file_actions_adddup2(&actions, file, to);
    if (file < 0) posix_spawn_file_actions_addopen(&actions, to, "/dev/null", O_WRONLY, 0);
  };
  lead(out, STDOUT_FILENO);
  lead(err, STDERR_FILENO);
  pid_t child = -1;
  const int failed =
      posix_spawnp(&child, words[0].c_str(), &actions, nullptr, pointers(arguments).data(), pointers(lines).data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) return Error{concat("cannot run ", words[0], ": ", std::strerror(failed))};
  return child;
}

}  // namespace

Result<ChildRun> run_child(const std::vector<std::string>& words, const Environment& extra) {
  const Capture out("stdout"), err("stderr");
  if (out.file() < 0 || err.file() < 0) return Error{concat("cannot run ", words[0], ": ", std::strerror(errno))};
  const auto start = std::chrono::steady_clock::now();
  SKEIN_ASSIGN(const pid_t child, spawn(words, extra, out.file(), err.file()));
  ChildRun run;
  run.peak_bytes = watch(child);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  run.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (interrupted()) return Error{"interrupted", ErrorKind::kInterrupted};
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    std::string command;
    for (const auto& word : words) command += (command.empty() ? "" : " ") + word;
    return Error{concat(command,
                        WIFEXITED(status) ? concat(" ended with exit code ", WEXITSTATUS(status))
                                          : concat(" was killed by signal ", WTERMSIG(status)),
                        ":\n", err.text(kLastWords))};
  }
  run.out = out.text(1 << 24);
  return run;
}

RunningChild::RunningChild(const std::vector<std::string>& words, const Environment& extra)
    : err_(std::make_unique<const Capture>("stderr")), child_(or_throw(spawn(words, extra, -1, err_->file()))) {}

RunningChild::~RunningChild() {
  constexpr int kTenthsOfSeconds = 100;
  if (is_running()) ::kill(child_, SIGTERM);
  for (int i = 0; i < kTenthsOfSeconds && is_running(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  if (is_running()) {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
  }
}

bool RunningChild::is_running() {
  if (!has_ended_) has_ended_ = ::waitpid(child_, nullptr, WNOHANG) == child_;
  return !has_ended_;
}

std::uint64_t RunningChild::resident_bytes() const { return has_ended_ ? 0 : status_bytes(child_, "VmRSS:"); }

std::string RunningChild::last_words() const { return err_->text(kLastWords); }

std::optional<std::string> find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string file = concat(folder.empty() ? "." : folder, "/", name);
    if (::access(file.c_str(), X_OK) == 0) return file;
  }
  return std::nullopt;
}

std::string own_program() {
  char path[4096];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path);
  return length > 0 ? std::string(path, static_cast<std::size_t>(length)) : std::string("skein");
}

}  // namespace skein
