// Packed experts in a file without a name, mapped into memory, of which only so many bytes are kept: those used least
// recently leave first. What has left is read from the file again where it is touched, so a budget that is too small
// costs time and changes no result.
//
// Thread-safety: append() and map() by one thread, before the rest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <span>
#include <vector>

namespace skein {

class ExpertPages {
 public:
  struct Counts {
    std::uint64_t hits = 0, misses = 0;  // uses of a piece that was kept, and that was not
    std::uint64_t bytes_read = 0;        // of the misses
    std::uint64_t bytes_kept = 0, bytes_stored = 0;
  };

  // budget: bytes to keep, at least one piece. The file lies in TMPDIR, else /var/tmp. Throws Failure.
  explicit ExpertPages(std::uint64_t budget);
  ~ExpertPages();
  ExpertPages(const ExpertPages&) = delete;
  ExpertPages& operator=(const ExpertPages&) = delete;

  // Stores a piece and returns its number. Throws Failure: a full disk.
  std::int64_t append(std::span<const std::byte> bytes);
  void map();
  const std::byte* begin() const { return memory_; }
  const std::byte* piece(std::int64_t number) const { return memory_ + pieces_[number].offset; }
  // To be called before a piece is read.
  void use(std::int64_t number);
  Counts counts() const;

 private:
  struct Piece {
    std::uint64_t offset = 0, size = 0;  // whole pages
    bool is_kept = false;
    std::list<std::int64_t>::iterator place;  // in order_, if kept
  };
  void let_go(Piece& piece);

  std::uint64_t budget_;
  int file_ = -1;
  std::byte* memory_ = nullptr;
  std::uint64_t size_ = 0;
  std::vector<Piece> pieces_;
  mutable std::mutex mutex_;
  std::list<std::int64_t> order_;  // kept pieces, the one used last in front
  Counts counts_;
};

}  // namespace skein
