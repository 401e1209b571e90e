#include "skein/cli/merge_step.h"

#include <spawn.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include "skein/base/concat.h"
#include "skein/io/env.h"
#include "skein/io/json.h"

extern char** environ;

namespace skein {
namespace {

// A folder that this very recipe made (docs/formats/merge-manifest.md).
bool is_made_by(const std::string& recipe, const std::string& out) {
  const std::string manifest = join_path(out, "skein_merge.json");
  if (!real_env().exists(join_path(out, "config.json")) || !real_env().exists(manifest)) return false;
  constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 28;
  const auto made = read_text_file(real_env(), manifest, kMostBytes);
  const auto asked = read_text_file(real_env(), recipe, kMostBytes);
  if (!made.ok() || !asked.ok()) return false;
  const auto facts = parse_json(*made, manifest);
  return facts.ok() && facts->is_object() && facts->value("recipe", Json()) == Json(*asked);
}

// The environment without what a launcher of MPI left in it: the merge is a process of its own, no rank of this job.
std::vector<char*> own_environment() {
  std::vector<char*> kept;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const bool is_launchers = text.starts_with("OMPI_") || text.starts_with("PMIX_") || text.starts_with("PMI_") ||
                              text.starts_with("PRTE_") || text.starts_with("SLURM_");
    if (!is_launchers) kept.push_back(*entry);
  }
  kept.push_back(nullptr);
  return kept;
}

}  // namespace

Status merge_checkpoint(Comm* comm, const std::string& recipe, const std::string& out, int num_threads) {
  if (comm == nullptr) return merge_checkpoint(recipe, out, num_threads);
  return agree(*comm, comm->rank() == 0 ? merge_checkpoint(recipe, out, num_threads) : Status());
}

Status merge_checkpoint(const std::string& recipe, const std::string& out, int num_threads) {
  if (is_made_by(recipe, out)) return {};
  std::vector<std::string> words = {"skein", "merge", recipe, out, "--progress", "none", "--overwrite"};
  if (num_threads > 0) words.insert(words.end(), {"--threads", std::to_string(num_threads)});
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  const int error = posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, argv.data(), own_environment().data());
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
