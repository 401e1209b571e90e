// All file access of the program, behind one small interface: the real files, an in-memory twin and a twin that fails
// on demand (fault_env.h). Paths are plain strings, "/" separated.
//
// Thread-safety: an Env may be used by many threads; one file handle by one thread, except ReadableFile, MappedFile
// and SizedFile::write_at, which may be shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "skein/base/result.h"

namespace skein {

// A whole file's bytes, borrowed while this lives. Real files are mapped read-only.
class MappedFile {
 public:
  virtual ~MappedFile() = default;
  virtual std::span<const std::byte> bytes() const = 0;
  // Tells the system that [offset, offset + length) will be read soon, or is not needed any more. Hints only.
  virtual void will_need(std::size_t offset, std::size_t length) const = 0;
  virtual void dont_need(std::size_t offset, std::size_t length) const = 0;
  // The same of a part of bytes(): what was read and copied need not count as this process's memory any longer.
  void release(std::span<const std::byte> part) const {
    dont_need(static_cast<std::size_t>(part.data() - bytes().data()), part.size());
  }
};

class ReadableFile {
 public:
  virtual ~ReadableFile() = default;
  virtual std::uint64_t size() const = 0;  // bytes, when the file was opened
  // Fills all of `out` from byte `offset`; a short file is an error.
  virtual Status read_at(std::uint64_t offset, std::span<std::byte> out) const = 0;
  // Tells the system that bytes will be read soon. A hint only.
  virtual void will_need(std::uint64_t offset, std::uint64_t length) const = 0;
};

class WritableFile {
 public:
  virtual ~WritableFile() = default;  // closes; what was not synced may be lost
  virtual Status append(std::span<const std::byte> bytes) = 0;
  virtual Status sync() = 0;   // to the disk (nothing if syncing is off)
  virtual Status close() = 0;  // reports what the system kept for later
};

// A file whose size is fixed when it is opened, written in any order, by many threads at once.
class SizedFile {
 public:
  virtual ~SizedFile() = default;  // closes; what was not synced may be lost
  virtual Status write_at(std::uint64_t offset, std::span<const std::byte> bytes) = 0;  // within the size
  // Asks the system to begin bringing these bytes to the disk. A hint only; no sync.
  virtual void start_writing(std::uint64_t offset, std::uint64_t length) = 0;
  virtual Status sync() = 0;   // all that was written before, to the disk (nothing if syncing is off)
  virtual Status close() = 0;  // reports what the system kept for later
};

struct FileFacts {
  std::uint64_t size_bytes = 0;
  std::int64_t modified_ns = 0;  // since the epoch
  std::uint64_t inode = 0;
  bool is_folder = false;
};

class Env {
 public:
  virtual ~Env() = default;
  virtual Result<std::unique_ptr<ReadableFile>> open(const std::string& path) = 0;
  virtual Result<std::shared_ptr<const MappedFile>> map(const std::string& path) = 0;
  virtual Result<std::unique_ptr<WritableFile>> create(const std::string& path) = 0;           // truncates
  virtual Result<std::unique_ptr<WritableFile>> open_for_append(const std::string& path) = 0;  // creates if missing
  // Creates the file if missing, gives it `size_bytes` (room is reserved where the file system can, so that a full disk
  // says so here) and keeps the bytes it has.
  virtual Result<std::unique_ptr<SizedFile>> open_sized(const std::string& path, std::uint64_t size_bytes) = 0;
  virtual Result<FileFacts> facts(const std::string& path) = 0;  // follows links
  virtual bool exists(const std::string& path) = 0;
  virtual Result<std::vector<std::string>> list(const std::string& folder) = 0;  // names, sorted
  virtual Status make_folders(const std::string& folder) = 0;                    // like mkdir -p
  virtual Status rename(const std::string& from, const std::string& to) = 0;     // atomic; replaces files
  // Swaps what two names stand for in one step; false where the file system cannot do that.
  virtual Result<bool> exchange(const std::string& a, const std::string& b) = 0;
  virtual Status remove_file(const std::string& path) = 0;
  virtual Status remove_tree(const std::string& folder) = 0;  // missing: no error
  virtual Status sync_folder(const std::string& folder) = 0;  // makes renames durable
};

// The machine's files. sync: --no-sync turns fsync off for the whole process.
Env& real_env();
void set_sync_writes(bool sync);

// An empty file system in memory, for tests.
std::unique_ptr<Env> make_memory_env();

// "a/b" + "c" -> "a/b/c".
std::string join_path(const std::string& folder, const std::string& name);
// Last component; folder part ("." if none).
std::string base_name(const std::string& path);
std::string parent_folder(const std::string& path);
// A name safe as one path component from an untrusted file: not empty, not "." or "..", no "/", "\\", NUL or control
// characters, no leading "-", at most 200 bytes.
bool is_safe_file_name(const std::string& name);

// The whole file as a string; refuses files over max_bytes (JSON, configs: a bound on what a lie can cost).
Result<std::string> read_text_file(Env& env, const std::string& path, std::uint64_t max_bytes = 256ULL << 20);
// Writes under a temporary name beside `path`, syncs, renames, syncs the folder: all of the bytes or the old file.
Status write_file_atomically(Env& env, const std::string& path, std::span<const std::byte> bytes);
Status write_text_atomically(Env& env, const std::string& path, const std::string& text);

}  // namespace skein
