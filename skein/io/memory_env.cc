// A file system in memory with the real one's rules: folders must exist, an open file survives its rename or removal,
// a folder replaces only an empty folder.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>

#include "skein/base/concat.h"
#include "skein/io/env.h"
#include "skein/io/file_error.h"

namespace skein {
namespace {

struct MemoryFile {
  std::vector<std::byte> bytes;
  std::int64_t modified_ns = 0;
  std::uint64_t inode = 0;
  bool is_folder = false;
};

// Shared by the Env and the files opened through it.
struct MemoryState {
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<MemoryFile>> entries;  // normalised path -> file or folder
  std::int64_t clock = 0;                                      // ticks once a change
  std::uint64_t last_inode = 0;
};

// "./a//b/../c/" -> "a/c"; the current folder is "", the root "/".
std::string normalised(const std::string& path) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (begin <= path.size()) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    if (part == "..") {
      if (!parts.empty()) parts.pop_back();
    } else if (!part.empty() && part != ".") {
      parts.push_back(part);
    }
    begin = end + 1;
  }
  std::string joined = !path.empty() && path[0] == '/' ? "/" : "";
  for (std::size_t i = 0; i < parts.size(); ++i) joined += (i > 0 ? "/" : "") + parts[i];
  return joined;
}

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return "";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// The prefix that all entries below a folder share.
std::string prefix_of(const std::string& folder) { return folder.empty() || folder == "/" ? folder : folder + "/"; }

class MemoryMap : public MappedFile {
 public:
  explicit MemoryMap(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}
  std::span<const std::byte> bytes() const override { return bytes_; }
  void will_need(std::size_t, std::size_t) const override {}
  void dont_need(std::size_t, std::size_t) const override {}

 private:
  std::vector<std::byte> bytes_;  // a copy, exactly as long as the file: a read past its end is found by ASan
};

class MemoryReadable : public ReadableFile {
 public:
  MemoryReadable(std::string path, std::shared_ptr<MemoryState> state, std::shared_ptr<MemoryFile> file)
      : path_(std::move(path)), state_(std::move(state)), file_(std::move(file)), size_(file_->bytes.size()) {}
  std::uint64_t size() const override { return size_; }
  Status read_at(std::uint64_t offset, std::span<std::byte> out) const override {
    const std::lock_guard lock(state_->mutex);
    const auto& bytes = file_->bytes;
    if (offset > bytes.size() || out.size() > bytes.size() - offset) {
      return Error{concat("cannot read ", path_, ": it ends at byte ", bytes.size(),
                          " and more was expected; was it cut short?")};
    }
    if (!out.empty()) std::memcpy(out.data(), bytes.data() + offset, out.size());
    return {};
  }
  void will_need(std::uint64_t, std::uint64_t) const override {}

 private:
  std::string path_;
  std::shared_ptr<MemoryState> state_;
  std::shared_ptr<MemoryFile> file_;
  std::uint64_t size_;
};

class MemoryWritable : public WritableFile {
 public:
  MemoryWritable(std::shared_ptr<MemoryState> state, std::shared_ptr<MemoryFile> file)
      : state_(std::move(state)), file_(std::move(file)) {}
  Status append(std::span<const std::byte> bytes) override {
    const std::lock_guard lock(state_->mutex);
    file_->bytes.insert(file_->bytes.end(), bytes.begin(), bytes.end());
    file_->modified_ns = ++state_->clock;
    return {};
  }
  Status sync() override { return {}; }
  Status close() override { return {}; }

 private:
  std::shared_ptr<MemoryState> state_;
  std::shared_ptr<MemoryFile> file_;
};

class MemorySized : public SizedFile {
 public:
  MemorySized(std::string path, std::shared_ptr<MemoryState> state, std::shared_ptr<MemoryFile> file)
      : path_(std::move(path)), state_(std::move(state)), file_(std::move(file)) {}
  Status write_at(std::uint64_t offset, std::span<const std::byte> bytes) override {
    const std::lock_guard lock(state_->mutex);
    if (offset > file_->bytes.size() || bytes.size() > file_->bytes.size() - offset) {
      return file_error("write past the end of", path_, EINVAL);
    }
    std::copy(bytes.begin(), bytes.end(), file_->bytes.begin() + static_cast<std::ptrdiff_t>(offset));
    file_->modified_ns = ++state_->clock;
    return {};
  }
  void start_writing(std::uint64_t, std::uint64_t) override {}
  Status sync() override { return {}; }
  Status close() override { return {}; }

 private:
  std::string path_;
  std::shared_ptr<MemoryState> state_;
  std::shared_ptr<MemoryFile> file_;
};

class MemoryEnv : public Env {
 public:
  Result<std::unique_ptr<ReadableFile>> open(const std::string& path) override {
    const std::lock_guard lock(state_->mutex);
    SKEIN_ASSIGN(auto file, file_at(path));
    return std::unique_ptr<ReadableFile>(new MemoryReadable(path, state_, std::move(file)));
  }

  Result<std::shared_ptr<const MappedFile>> map(const std::string& path) override {
    const std::lock_guard lock(state_->mutex);
    SKEIN_ASSIGN(const auto file, file_at(path));
    return std::shared_ptr<const MappedFile>(std::make_shared<MemoryMap>(file->bytes));
  }

  Result<std::unique_ptr<WritableFile>> create(const std::string& path) override {
    const std::lock_guard lock(state_->mutex);
    SKEIN_ASSIGN(auto file, file_to_write(path));
    file->bytes.clear();
    return std::unique_ptr<WritableFile>(new MemoryWritable(state_, std::move(file)));
  }

  Result<std::unique_ptr<WritableFile>> open_for_append(const std::string& path) override {
    const std::lock_guard lock(state_->mutex);
    SKEIN_ASSIGN(auto file, file_to_write(path));
    return std::unique_ptr<WritableFile>(new MemoryWritable(state_, std::move(file)));
  }

  Result<std::unique_ptr<SizedFile>> open_sized(const std::string& path, std::uint64_t size_bytes) override {
    const std::lock_guard lock(state_->mutex);
    SKEIN_ASSIGN(auto file, file_to_write(path));
    file->bytes.resize(size_bytes);
    return std::unique_ptr<SizedFile>(new MemorySized(path, state_, std::move(file)));
  }

  Result<FileFacts> facts(const std::string& path) override {
    const std::lock_guard lock(state_->mutex);
    const std::string key = normalised(path);
    if (is_folder(key) && find(key) == nullptr) return FileFacts{.is_folder = true};
    const auto file = find(key);
    if (file == nullptr) return file_error("look at", path, ENOENT);
    return FileFacts{file->bytes.size(), file->modified_ns, file->inode, file->is_folder};
  }

  bool exists(const std::string& path) override {
    const std::lock_guard lock(state_->mutex);
    const std::string key = normalised(path);
    return is_folder(key) || find(key) != nullptr;
  }

  Result<std::vector<std::string>> list(const std::string& folder) override {
    const std::lock_guard lock(state_->mutex);
    const std::string key = normalised(folder);
    if (!is_folder(key)) return file_error("list", folder, find(key) != nullptr ? ENOTDIR : ENOENT);
    std::vector<std::string> names;
    for (const auto& [path, file] : state_->entries) {
      if (parent_of(path) == key) names.push_back(base_name(path));
    }
    return names;
  }

  Status make_folders(const std::string& folder) override {
    const std::lock_guard lock(state_->mutex);
    const std::string key = normalised(folder);
    for (std::size_t end = key.find('/', 1);; end = key.find('/', end + 1)) {
      const std::string part = key.substr(0, end);
      if (!is_folder(part)) {
        if (find(part) != nullptr) return file_error("make folder", folder, ENOTDIR);
        state_->entries[part] = new_entry(true);
      }
      if (end == std::string::npos) return {};
    }
  }

  Status rename(const std::string& from, const std::string& to) override {
    const std::lock_guard lock(state_->mutex);
    const std::string source = normalised(from), target = normalised(to);
    const auto file = find(source);
    const std::string action = "rename " + from + " to";
    if (file == nullptr || !is_folder(parent_of(target))) return file_error(action, to, ENOENT);
    if (source == target) return {};
    if (const auto old = find(target); old != nullptr) {
      if (old->is_folder && !file->is_folder) return file_error(action, to, EISDIR);
      if (!old->is_folder && file->is_folder) return file_error(action, to, ENOTDIR);
      if (old->is_folder && !below(target).empty()) return file_error(action, to, ENOTEMPTY);
    }
    if (target.starts_with(prefix_of(source))) return file_error(action, to, EINVAL);
    move_tree(source, target);
    return {};
  }

  Result<bool> exchange(const std::string& a, const std::string& b) override {
    const std::lock_guard lock(state_->mutex);
    const std::string first = normalised(a), second = normalised(b);
    if (find(first) == nullptr || find(second) == nullptr) return file_error("exchange " + a + " with", b, ENOENT);
    const std::string aside = first + "\n";  // no path of a test holds a line break
    move_tree(first, aside);
    move_tree(second, first);
    move_tree(aside, second);
    return true;
  }

  Status remove_file(const std::string& path) override {
    const std::lock_guard lock(state_->mutex);
    if (auto file = file_at(path); !file.ok())
      return file_error("remove", path, is_folder(normalised(path)) ? EISDIR : ENOENT);
    state_->entries.erase(normalised(path));
    return {};
  }

  Status remove_tree(const std::string& folder) override {
    const std::lock_guard lock(state_->mutex);
    const std::string key = normalised(folder);
    for (const auto& path : below(key)) state_->entries.erase(path);
    state_->entries.erase(key);
    return {};
  }

  Status sync_folder(const std::string& folder) override {
    const std::lock_guard lock(state_->mutex);
    if (!is_folder(normalised(folder))) return file_error("open", folder, ENOENT);
    return {};
  }

 private:
  std::shared_ptr<MemoryFile> find(const std::string& key) const {
    const auto entry = state_->entries.find(key);
    return entry == state_->entries.end() ? nullptr : entry->second;
  }

  bool is_folder(const std::string& key) const {
    if (key.empty() || key == "/") return true;
    const auto file = find(key);
    return file != nullptr && file->is_folder;
  }

  std::shared_ptr<MemoryFile> new_entry(bool folder) {
    auto file = std::make_shared<MemoryFile>();
    file->modified_ns = ++state_->clock;
    file->inode = ++state_->last_inode;
    file->is_folder = folder;
    return file;
  }

  Result<std::shared_ptr<MemoryFile>> file_at(const std::string& path) const {
    const std::string key = normalised(path);
    if (is_folder(key)) return file_error("open", path, EISDIR);
    auto file = find(key);
    if (file == nullptr) return file_error("open", path, ENOENT);
    return file;
  }

  Result<std::shared_ptr<MemoryFile>> file_to_write(const std::string& path) {
    const std::string key = normalised(path);
    if (is_folder(key)) return file_error("write", path, EISDIR);
    if (!is_folder(parent_of(key))) return file_error("write", path, ENOENT);
    auto& file = state_->entries[key];
    if (file == nullptr) file = new_entry(false);
    return file;
  }

  std::vector<std::string> below(const std::string& folder) const {
    const std::string prefix = prefix_of(folder);
    std::vector<std::string> paths;
    for (auto entry = state_->entries.lower_bound(prefix);
         entry != state_->entries.end() && entry->first.starts_with(prefix); ++entry) {
      if (entry->first != folder) paths.push_back(entry->first);
    }
    return paths;
  }

  void move_tree(const std::string& source, const std::string& target) {
    for (const auto& path : below(source)) {
      auto moved = state_->entries.extract(path);
      moved.key() = target + path.substr(source.size());
      state_->entries.insert(std::move(moved));
    }
    auto moved = state_->entries.extract(source);
    moved.key() = target;
    state_->entries.erase(target);
    state_->entries.insert(std::move(moved));
  }

  std::shared_ptr<MemoryState> state_ = std::make_shared<MemoryState>();
};

}  // namespace

std::unique_ptr<Env> make_memory_env() { return std::make_unique<MemoryEnv>(); }

}  // namespace skein
