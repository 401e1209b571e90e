#include "skein/experts/expert_pages.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "skein/base/check.h"
#include "skein/base/concat.h"
#include "skein/base/result.h"
#include "skein/io/temporary_folder.h"

namespace skein {
namespace {

std::string folder_for_pages() { return temporary_root("/var/tmp"); }

[[noreturn]] void fail(const std::string& what) {
  throw Failure({concat(folder_for_pages(), ": the pages of experts ", what, ": ", std::strerror(errno),
                        "; TMPDIR names another folder, and without --expert-memory no file is needed")});
}

std::uint64_t whole_pages(std::uint64_t bytes) {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

}  // namespace

ExpertPages::ExpertPages(std::uint64_t budget) : budget_(budget) {
  std::string path = folder_for_pages() + "/skein-experts-XXXXXX";
  file_ = ::mkostemp(path.data(), O_CLOEXEC);
  if (file_ < 0) fail("cannot be stored");
  ::unlink(path.c_str());  // it goes with this process, however that ends
}

ExpertPages::~ExpertPages() {
  if (memory_ != nullptr) ::munmap(memory_, size_);
  if (file_ >= 0) ::close(file_);
}

std::int64_t ExpertPages::append(std::span<const std::byte> bytes) {
  SKEIN_CHECK(memory_ == nullptr);
  std::span<const std::byte> rest = bytes;
  std::uint64_t offset = size_;
  while (!rest.empty()) {
    const ssize_t written = ::pwrite(file_, rest.data(), rest.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("cannot be stored");
    offset += static_cast<std::uint64_t>(written);
    rest = rest.subspan(static_cast<std::size_t>(written));
  }
  pieces_.push_back({size_, whole_pages(bytes.size()), false, {}});
  size_ += pieces_.back().size;
  return static_cast<std::int64_t>(pieces_.size()) - 1;
}

void ExpertPages::map() {
  SKEIN_CHECK(memory_ == nullptr);
  if (size_ == 0) return;
  if (::ftruncate(file_, static_cast<off_t>(size_)) != 0) fail("cannot be stored");
  void* const memory = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file_, 0);
  if (memory == MAP_FAILED) fail("cannot be mapped");
  memory_ = static_cast<std::byte*>(memory);
  ::madvise(memory_, size_, MADV_RANDOM);  // what stands beside a piece is another expert's
  counts_.bytes_stored = size_;
}

void ExpertPages::use(std::int64_t number) {
  const std::lock_guard lock(mutex_);
  Piece& piece = pieces_[static_cast<std::size_t>(number)];
  if (piece.is_kept) {
    ++counts_.hits;
    order_.splice(order_.begin(), order_, piece.place);
    return;
  }
  ++counts_.misses;
  counts_.bytes_read += piece.size;
  while (!order_.empty() && counts_.bytes_kept + piece.size > budget_) {
    let_go(pieces_[static_cast<std::size_t>(order_.back())]);
    order_.pop_back();
  }
  ::madvise(memory_ + piece.offset, piece.size, MADV_WILLNEED);
  order_.push_front(number);
  piece.place = order_.begin();
  piece.is_kept = true;
  counts_.bytes_kept += piece.size;
}

// Of a file's mapping, MADV_DONTNEED only forgets: whoever still reads there gets the same bytes from the file.
void ExpertPages::let_go(Piece& piece) {
  ::madvise(memory_ + piece.offset, piece.size, MADV_DONTNEED);
  piece.is_kept = false;
  counts_.bytes_kept -= piece.size;
}

ExpertPages::Counts ExpertPages::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

}  // namespace skein
