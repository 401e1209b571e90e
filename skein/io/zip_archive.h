// A zip file's members, stored without compression, through libzip.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "skein/io/env.h"

namespace skein {

// Requires: used by one thread at a time (read() moves libzip's state).
class ZipArchive {
 public:
  static Result<std::unique_ptr<ZipArchive>> open(Env& env, const std::string& path);
  ~ZipArchive();

  const std::string& path() const { return path_; }
  std::uint64_t file_size() const { return map_->bytes().size(); }
  const std::vector<std::string>& names() const { return names_; }  // in file order, no name twice
  bool contains(const std::string& name) const;
  // A whole member; its checksum is verified. Compressed and encrypted members are refused: a member is never larger
  // than the file, so it cannot be a bomb.
  Result<std::vector<std::byte>> read(const std::string& name) const;

 private:
  ZipArchive() = default;
  struct Handle;
  std::string path_;
  std::shared_ptr<const MappedFile> map_;
  std::unique_ptr<Handle> handle_;  // reads the map: closed before it
  std::vector<std::string> names_;
};

}  // namespace skein
