// Bytes of files that are read ahead into this process's own memory, past the page cache (O_DIRECT). What is read once
// then costs no copy out of the cache, and pushes nothing out of it that others need.
//
// Files that lie in the cache already, small pieces and file systems without O_DIRECT are read as ever: fetch() is a
// hint and never fails, and read_at() gives the same bytes in any case.
//
// Thread-safety: fetch() and open() from one thread at a time; the wrapped files as any ReadableFile.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "skein/io/env.h"

namespace skein {

class PrefetchRoom {
 public:
  PrefetchRoom();
  ~PrefetchRoom();  // files outlive it safely: they are read as ever then

  // file: one of real_env(), at `path`. What fetch() brings of the result, its read_at() gives.
  std::unique_ptr<ReadableFile> wrap(std::unique_ptr<ReadableFile> file, const std::string& path);

  // How much memory fetched bytes may take; 0, as at the start: none.
  void open(std::int64_t bytes);
  // Begins to read bytes that will be asked for once. Where there is no room left, or the file was not wrapped, it is
  // will_need(). Bytes that nobody asked for give way to later ones.
  void fetch(const ReadableFile& file, std::uint64_t offset, std::uint64_t length);

 private:
  struct Core;
  class File;
  std::shared_ptr<Core> core_;
};

}  // namespace skein
