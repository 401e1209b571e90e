// The machine's files through POSIX calls.
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "skein/io/env.h"
#include "skein/io/file_error.h"

namespace skein {
namespace {

std::atomic<bool> sync_writes{true};

// Owns a descriptor.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int get() const { return number_; }
  int release() { return std::exchange(number_, -1); }

 private:
  int number_;
};

class RealMap : public MappedFile {
 public:
  RealMap(void* address, std::size_t size) : address_(address), size_(size) {}
  ~RealMap() override {
    if (size_ > 0) ::munmap(address_, size_);
  }
  std::span<const std::byte> bytes() const override { return {static_cast<const std::byte*>(address_), size_}; }
  void will_need(std::size_t offset, std::size_t length) const override { advise(offset, length, MADV_WILLNEED); }
  void dont_need(std::size_t offset, std::size_t length) const override { advise(offset, length, MADV_DONTNEED); }

 private:
  void advise(std::size_t offset, std::size_t length, int advice) const {
    if (offset >= size_) return;
    length = std::min(length, size_ - offset);
    static const auto kPage = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    // Whole pages only: of a page shared with a neighbour, needing it wins over not needing it.
    std::size_t begin = offset / kPage * kPage;
    std::size_t end = offset + length;
    if (advice == MADV_DONTNEED) {
      begin = (offset + kPage - 1) / kPage * kPage;
      if (end != size_) end = end / kPage * kPage;
    }
    if (begin < end) ::madvise(static_cast<char*>(address_) + begin, end - begin, advice);
  }

  void* address_;
  std::size_t size_;
};

class RealReadable : public ReadableFile {
 public:
  RealReadable(std::string path, Descriptor file, std::uint64_t size)
      : path_(std::move(path)), file_(std::move(file)), size_(size) {}
  std::uint64_t size() const override { return size_; }
  Status read_at(std::uint64_t offset, std::span<std::byte> out) const override {
    while (!out.empty()) {
      const auto got = ::pread(file_.get(), out.data(), out.size(), static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return file_error("read", path_, errno);
      if (got == 0)
        return Error{"cannot read " + path_ + ": it ends at byte " + std::to_string(offset) +
                     " and more was expected; was it cut short?"};
      offset += static_cast<std::uint64_t>(got);
      out = out.subspan(static_cast<std::size_t>(got));
    }
    return {};
  }
  void will_need(std::uint64_t offset, std::uint64_t length) const override {
    (void)::posix_fadvise(file_.get(), static_cast<off_t>(offset), static_cast<off_t>(length), POSIX_FADV_WILLNEED);
  }

 private:
  std::string path_;
  Descriptor file_;
  std::uint64_t size_;
};

Status sync_descriptor(int file, const std::string& path) {
  if (!sync_writes.load()) return {};
  // Some file systems cannot sync a folder or a pipe and say EINVAL: nothing to be done, nothing lost.
  if (::fsync(file) != 0 && errno != EINVAL && errno != EROFS) return file_error("sync", path, errno);
  return {};
}

class RealWritable : public WritableFile {
 public:
  RealWritable(std::string path, Descriptor file) : path_(std::move(path)), file_(std::move(file)) {}
  Status append(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const auto put = ::write(file_.get(), bytes.data(), bytes.size());
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return file_error("write", path_, errno);
      bytes = bytes.subspan(static_cast<std::size_t>(put));
    }
    return {};
  }
  Status sync() override { return sync_descriptor(file_.get(), path_); }
  Status close() override {
    // POSIX leaves the descriptor's state open after EINTR; on Linux it is closed.
    if (::close(file_.release()) != 0 && errno != EINTR) return file_error("write", path_, errno);
    return {};
  }

 private:
  std::string path_;
  Descriptor file_;
};

class RealSized : public SizedFile {
 public:
  RealSized(std::string path, Descriptor file) : path_(std::move(path)), file_(std::move(file)) {}
  Status write_at(std::uint64_t offset, std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const auto put = ::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return file_error("write", path_, errno);
      offset += static_cast<std::uint64_t>(put);
      bytes = bytes.subspan(static_cast<std::size_t>(put));
    }
    return {};
  }
  void start_writing(std::uint64_t offset, std::uint64_t length) override {
    if (!sync_writes.load()) return;
    (void)::sync_file_range(file_.get(), static_cast<off_t>(offset), static_cast<off_t>(length), SYNC_FILE_RANGE_WRITE);
  }
  Status sync() override { return sync_descriptor(file_.get(), path_); }
  Status close() override {
    if (::close(file_.release()) != 0 && errno != EINTR) return file_error("write", path_, errno);
    return {};
  }

 private:
  std::string path_;
  Descriptor file_;
};

// Room for the whole file now rather than a full disk in the middle; file systems that cannot reserve only get the
// size.
Status reserve(const Descriptor& file, const std::string& path, std::uint64_t size_bytes) {
  struct stat found {};
  if (::fstat(file.get(), &found) != 0) return file_error("look at", path, errno);
  const auto size = static_cast<off_t>(size_bytes);
  if (found.st_size == size) return {};
  if (::ftruncate(file.get(), size) != 0) return file_error("write", path, errno);
  if (size == 0 || ::fallocate(file.get(), 0, 0, size) == 0) return {};
  if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL) return {};
  return file_error("write", path, errno);
}

class RealEnv : public Env {
 public:
  Result<std::unique_ptr<ReadableFile>> open(const std::string& path) override {
    struct stat facts {};
    SKEIN_ASSIGN(Descriptor file, open_to_read(path, facts));
    return std::unique_ptr<ReadableFile>(
        new RealReadable(path, std::move(file), static_cast<std::uint64_t>(facts.st_size)));
  }

  Result<std::shared_ptr<const MappedFile>> map(const std::string& path) override {
    struct stat facts {};
    SKEIN_ASSIGN(const Descriptor file, open_to_read(path, facts));
    const auto size = static_cast<std::size_t>(facts.st_size);
    void* address = nullptr;
    if (size > 0) {
      address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
      if (address == MAP_FAILED) return file_error("map", path, errno);
    }
    return std::shared_ptr<const MappedFile>(std::make_shared<RealMap>(address, size));
  }

  Result<std::unique_ptr<WritableFile>> create(const std::string& path) override {
    return open_to_write(path, O_TRUNC);
  }
  Result<std::unique_ptr<WritableFile>> open_for_append(const std::string& path) override {
    return open_to_write(path, O_APPEND);
  }

  Result<std::unique_ptr<SizedFile>> open_sized(const std::string& path, std::uint64_t size_bytes) override {
    Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
    if (file.get() < 0) return file_error("write", path, errno);
    SKEIN_TRY(reserve(file, path, size_bytes));
    return std::unique_ptr<SizedFile>(new RealSized(path, std::move(file)));
  }

  Result<FileFacts> facts(const std::string& path) override {
    struct stat found {};
    if (::stat(path.c_str(), &found) != 0) return file_error("look at", path, errno);
    FileFacts facts;
    facts.size_bytes = static_cast<std::uint64_t>(found.st_size);
    facts.modified_ns = static_cast<std::int64_t>(found.st_mtim.tv_sec) * 1'000'000'000 + found.st_mtim.tv_nsec;
    facts.inode = found.st_ino;
    facts.is_folder = S_ISDIR(found.st_mode);
    return facts;
  }

  bool exists(const std::string& path) override {
    struct stat found {};
    return ::lstat(path.c_str(), &found) == 0;
  }

  Result<std::vector<std::string>> list(const std::string& folder) override {
    std::error_code failure;
    std::vector<std::string> names;
    for (auto entry = std::filesystem::directory_iterator(folder, failure);
         !failure && entry != std::filesystem::directory_iterator(); entry.increment(failure)) {
      names.push_back(entry->path().filename().string());
    }
    if (failure) return file_error("list", folder, failure.value());
    std::sort(names.begin(), names.end());
    return names;
  }

  Status make_folders(const std::string& folder) override {
    std::error_code failure;
    std::filesystem::create_directories(folder, failure);
    if (failure) return file_error("make folder", folder, failure.value());
    return {};
  }

  Status rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) return file_error("rename " + from + " to", to, errno);
    return {};
  }

  Result<bool> exchange(const std::string& a, const std::string& b) override {
    if (::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) return true;
    if (errno == EINVAL || errno == ENOSYS || errno == ENOTSUP) return false;
    return file_error("exchange " + a + " with", b, errno);
  }

  Status remove_file(const std::string& path) override {
    if (::unlink(path.c_str()) != 0) return file_error("remove", path, errno);
    return {};
  }

  Status remove_tree(const std::string& folder) override {
    std::error_code failure;
    std::filesystem::remove_all(folder, failure);  // does not follow links
    if (failure) return file_error("remove", folder, failure.value());
    return {};
  }

  Status sync_folder(const std::string& folder) override {
    const Descriptor file(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (file.get() < 0) return file_error("open", folder, errno);
    return sync_descriptor(file.get(), folder);
  }

 private:
  static Result<Descriptor> open_to_read(const std::string& path, struct stat& facts) {
    Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) return file_error("open", path, errno);
    if (::fstat(file.get(), &facts) != 0) return file_error("look at", path, errno);
    if (S_ISDIR(facts.st_mode)) return file_error("open", path, EISDIR);
    return file;
  }

  static Result<std::unique_ptr<WritableFile>> open_to_write(const std::string& path, int how) {
    Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | how, 0666));
    if (file.get() < 0) return file_error("write", path, errno);
    return std::unique_ptr<WritableFile>(new RealWritable(path, std::move(file)));
  }
};

}  // namespace

Env& real_env() {
  static RealEnv env;
  return env;
}

void set_sync_writes(bool sync) { sync_writes.store(sync); }

}  // namespace skein
