#include "skein/cli/merge_step.h"

#include <spawn.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "skein/base/concat.h"
#include "skein/io/env.h"

extern char** environ;

namespace skein {

Status merge_checkpoint(const std::string& recipe, const std::string& out, int num_threads) {
  if (real_env().exists(join_path(out, "config.json"))) return {};
  std::vector<std::string> words = {"skein", "merge", recipe, out, "--progress", "none"};
  if (num_threads > 0) words.insert(words.end(), {"--threads", std::to_string(num_threads)});
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  const int error = posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, argv.data(), environ);
  if (error != 0) return Error{concat(recipe, ": skein merge could not be started: ", std::strerror(error))};
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return Error{concat(recipe, ": lost sight of skein merge: ", std::strerror(errno))};
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  const bool stopped = WIFEXITED(status) && WEXITSTATUS(status) == 130;
  return Error{
      concat(recipe, ": skein merge ended with ",
             WIFEXITED(status) ? concat("exit code ", WEXITSTATUS(status)) : concat("signal ", WTERMSIG(status)),
             "; what it said stands above"),
      stopped ? ErrorKind::kInterrupted : ErrorKind::kFailed};
}

}  // namespace skein
