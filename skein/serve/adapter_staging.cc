#include "skein/serve/adapter_staging.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "skein/base/concat.h"
#include "skein/io/env.h"

// The system's calls and not Env: following no link, step by step, is what this file is for.
namespace skein {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  int get() const { return number_; }

 private:
  int number_;
};

// "a//b/" -> {"a", "b"}; refuses what is no plain name.
Result<std::vector<std::string>> steps_of(const std::string& path) {
  std::vector<std::string> steps;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string step = path.substr(begin, end - begin);
    begin = end + 1;
    if (step.empty()) continue;
    if (!is_safe_file_name(step)) {
      return Error{concat("the path holds '", printable(step), "'; expected plain names below the allowed folder")};
    }
    steps.push_back(step);
  }
  if (steps.empty()) return Error{"the path names the allowed folder itself; expected an adapter in it"};
  return steps;
}

Result<Descriptor> open_below(int folder, const std::string& name, int flags) {
  // O_NONBLOCK: a pipe must not keep the server waiting for its other end.
  Descriptor opened(openat(folder, name.c_str(), flags | O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (opened.get() >= 0) return opened;
  if (errno == ELOOP || errno == ENOTDIR) {
    return Error{concat("'", printable(name),
                        "' is a symbolic link or of another kind; only plain files and folders "
                        "inside the allowed folder are read")};
  }
  return Error{concat("'", printable(name), "' cannot be opened: ", std::strerror(errno))};
}

// left: bytes that may yet be copied.
Status copy_file(int folder, const std::string& name, const std::string& target, std::uint64_t& left) {
  SKEIN_ASSIGN(const Descriptor source, open_below(folder, name, 0));
  struct stat facts {};
  if (fstat(source.get(), &facts) != 0 || !S_ISREG(facts.st_mode)) {
    return Error{concat("'", printable(name), "' is no plain file")};
  }
  if (static_cast<std::uint64_t>(facts.st_size) > left) {
    return Error{concat("'", printable(name), "' has ", facts.st_size, " bytes; ", left,
                        " are left of what an adapter may have (--max-adapter-mib)")};
  }
  const Descriptor copy(open(target.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (copy.get() < 0) return Error{concat(target, " cannot be written: ", std::strerror(errno))};
  std::vector<char> buffer(1 << 20);
  std::uint64_t copied = 0;
  const auto expected = static_cast<std::uint64_t>(facts.st_size);
  while (true) {
    const ssize_t size = read(source.get(), buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return Error{concat("'", printable(name), "' cannot be read: ", std::strerror(errno))};
    if (size == 0) break;
    copied += static_cast<std::uint64_t>(size);
    if (copied > expected) break;
    for (ssize_t written = 0; written < size;) {
      const ssize_t part = write(copy.get(), buffer.data() + written, static_cast<std::size_t>(size - written));
      if (part < 0 && errno == EINTR) continue;
      if (part < 0) return Error{concat(target, " cannot be written: ", std::strerror(errno))};
      written += part;
    }
  }
  if (copied != expected) return Error{concat("'", printable(name), "' changed while it was copied")};
  left -= copied;
  return {};
}

std::vector<std::string> names_below(int folder) {
  std::vector<std::string> names;
  const int again = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* listing = again < 0 ? nullptr : fdopendir(again);
  if (listing == nullptr) return names;
  constexpr std::size_t kMaxNames = 10'000;
  while (const dirent* entry = readdir(listing)) {
    if (names.size() >= kMaxNames) break;
    names.emplace_back(entry->d_name);
  }
  closedir(listing);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

Status stage_adapter(const std::string& allowed, const std::string& asked, const std::string& staging,
                     const StagingLimits& limits) {
  std::string inside = asked;
  if (!asked.empty() && asked.front() == '/') {
    std::string root = allowed;
    while (root.size() > 1 && root.back() == '/') root.pop_back();
    if (asked.compare(0, root.size() + 1, root + "/") != 0) {
      return Error{"the path lies outside the folder that adapters may be loaded from"};
    }
    inside = asked.substr(root.size() + 1);
  }
  SKEIN_ASSIGN(const std::vector<std::string> steps, steps_of(inside));
  // The allowed folder itself is the administrator's word and may be a link.
  Descriptor folder(open(allowed.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0) return Error{concat("the allowed folder cannot be opened: ", std::strerror(errno))};
  for (const std::string& step : steps) {
    SKEIN_ASSIGN(folder, open_below(folder.get(), step, O_DIRECTORY));
  }

  Env& env = real_env();
  std::uint64_t left = limits.max_bytes;
  SKEIN_TRY(env.make_folders(staging));
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors", "card.json", "texts.safetensors"}) {
    struct stat facts {};
    if (fstatat(folder.get(), name, &facts, AT_SYMLINK_NOFOLLOW) != 0) continue;  // what must be there is asked later
    SKEIN_TRY(copy_file(folder.get(), name, join_path(staging, name), left));
  }
  struct stat facts {};
  if (fstatat(folder.get(), "gates", &facts, AT_SYMLINK_NOFOLLOW) != 0) return {};
  SKEIN_ASSIGN(const Descriptor gates, open_below(folder.get(), "gates", O_DIRECTORY));
  SKEIN_TRY(env.make_folders(join_path(staging, "gates")));
  std::size_t num_gates = 0;
  for (const std::string& name : names_below(gates.get())) {
    if (name == ".safetensors" || !name.ends_with(".safetensors")) continue;
    if (++num_gates > limits.max_gates) {
      return Error{concat("'gates' has more than ", limits.max_gates, " files, as many as are allowed")};
    }
    SKEIN_TRY(copy_file(gates.get(), name, join_path(join_path(staging, "gates"), name), left));
  }
  return {};
}

}  // namespace skein
