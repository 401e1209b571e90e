// One file that appears complete or not at all: written under a temporary name, synced, renamed, its folder synced.
#pragma once

#include <memory>
#include <string>

#include "skein/io/env.h"
#include "skein/io/temporary_name.h"

namespace skein {

class AtomicFile {
 public:
  // Removes what killed processes left of `path`.
  static Result<std::unique_ptr<AtomicFile>> create(Env& env, const std::string& path);
  ~AtomicFile();  // without commit: removes the temporary file

  Status append(std::span<const std::byte> bytes) { return file_->append(bytes); }
  Status commit();

 private:
  AtomicFile(Env& env, const std::string& path) : env_(env), path_(path), temporary_(path) {}

  Env& env_;
  std::string path_;
  TemporaryName temporary_;
  std::unique_ptr<WritableFile> file_;
  bool committed_ = false;
};

}  // namespace skein
