#include "skein/io/prefetch_room.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace skein {
namespace {

constexpr std::uint64_t kBlock = 4096;                  // what O_DIRECT asks of offsets, lengths and addresses
constexpr std::uint64_t kPiece = 1 << 20;               // bytes of one request
constexpr std::uint64_t kBuffer = kPiece + 2 * kBlock;  // a piece that begins and ends within blocks
constexpr std::uint64_t kLeast = 64 << 10;              // shorter ranges are read as ever
constexpr int kThreads = 4;                             // requests at the disk at once

struct FreeAligned {
  void operator()(std::byte* bytes) const { ::operator delete (bytes, std::align_val_t{kBlock}); }
};
using Buffer = std::unique_ptr<std::byte, FreeAligned>;

struct Piece {
  int file = -1;
  std::uint64_t start = 0, begin = 0, end = 0;  // on the disk from `start`, a block's border; wanted [begin, end)
  std::uint64_t left = 0;                       // wanted bytes that nobody has taken yet
  Buffer buffer;
  int num_readers = 0;
  bool is_ready = false;
};

// Whether half of a range is in the page cache; true where the kernel cannot say. (A cached page may be newer than the
// disk's, which O_DIRECT also respects.)
bool is_cached(int file, std::uint64_t offset, std::uint64_t length) {
  struct Range {
    std::uint64_t offset, length;
  } range{offset, length};
  struct Pages {
    std::uint64_t cached, dirty, writeback, evicted, recently_evicted;
  } pages{};
#ifdef SYS_cachestat
  constexpr long kCall = SYS_cachestat;
#else
  constexpr long kCall = 451;  // the number on every architecture; C libraries before 2.38 have no name for it
#endif
  if (::syscall(kCall, file, &range, &pages, 0) != 0) return true;
  return pages.dirty > 0 || pages.cached * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) * 2 >= length;
}

bool read_piece(const Piece& piece) {
  const std::uint64_t size = (piece.end - piece.start + kBlock - 1) / kBlock * kBlock;
  std::uint64_t done = 0;
  while (piece.start + done < piece.end) {
    const ssize_t got =
        ::pread(piece.file, piece.buffer.get() + done, size - done, static_cast<off_t>(piece.start + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;  // read_at() will find the same, and say so
    done += static_cast<std::uint64_t>(got);
    if (done % kBlock != 0 && piece.start + done < piece.end) return false;
  }
  return true;
}

}  // namespace

// What the room, its files and its threads share.
struct PrefetchRoom::Core {
  std::mutex mutex;
  std::condition_variable asked;  // threads: there is a piece to read, or the end
  std::condition_variable ready;  // readers: a piece has arrived
  using Entry = std::pair<const File*, std::shared_ptr<Piece>>;
  std::deque<Entry> queue;    // to be read
  std::deque<Entry> fetched;  // all, oldest first
  std::vector<Buffer> unused;
  std::size_t num_buffers = 0, most_buffers = 0;
  bool is_over = false;
  std::vector<std::thread> threads;

  void serve();
  Buffer take_buffer();  // null: no room
  void give_back(Piece& piece) {
    if (piece.buffer) unused.push_back(std::move(piece.buffer));
  }
};

class PrefetchRoom::File : public ReadableFile {
 public:
  File(std::unique_ptr<ReadableFile> file, int direct, std::shared_ptr<Core> core)
      : file_(std::move(file)), direct_(direct), core_(std::move(core)) {}
  ~File() override {
    std::unique_lock lock(core_->mutex);
    const auto is_mine = [&](const auto& entry) { return entry.first == this; };
    std::erase_if(core_->queue, is_mine);
    std::erase_if(core_->fetched, is_mine);
    core_->ready.wait(lock, [&] { return num_reading_ == 0; });
    for (auto& [begin, piece] : pieces_) core_->give_back(*piece);
    ::close(direct_);
  }

  std::uint64_t size() const override { return file_->size(); }
  void will_need(std::uint64_t offset, std::uint64_t length) const override { file_->will_need(offset, length); }

  Status read_at(std::uint64_t offset, std::span<std::byte> out) const override {
    while (!out.empty()) {
      std::size_t count = out.size();
      if (const auto piece = look(offset, count)) {
        std::memcpy(out.data(), piece->buffer.get() + (offset - piece->start), count);
        taken(piece, count);
      } else {
        SKEIN_TRY(file_->read_at(offset, out.first(count)));
      }
      offset += count;
      out = out.subspan(count);
    }
    return {};
  }

  // The rest are called with the core's mutex held.
  bool add(std::uint64_t begin, std::uint64_t end) const {
    if (pieces_.contains(begin)) return true;
    auto piece = std::make_shared<Piece>();
    piece->buffer = core_->take_buffer();
    if (!piece->buffer) return false;
    piece->file = direct_;
    piece->start = begin / kBlock * kBlock;
    piece->begin = begin;
    piece->end = end;
    piece->left = end - begin;
    pieces_.emplace(begin, piece);
    core_->queue.emplace_back(this, piece);
    core_->fetched.emplace_back(this, std::move(piece));
    return true;
  }
  void reads(int more) const { num_reading_ += more; }
  void arrived(Piece& piece, bool is_good) const {
    piece.is_ready = true;
    if (!is_good) drop(piece);
  }
  // Takes away a piece that nobody reads at this moment.
  bool drop(Piece& piece) const {
    if (!piece.is_ready || piece.num_readers > 0) return false;
    const auto found = pieces_.find(piece.begin);
    if (found == pieces_.end() || found->second.get() != &piece) return false;
    core_->give_back(piece);
    pieces_.erase(found);
    return true;
  }
  int direct() const { return direct_; }

 private:
  // The piece that has byte `offset`, waited for, with `count` cut to what it has. Null: none, `count` cut to the gap.
  std::shared_ptr<Piece> look(std::uint64_t offset, std::size_t& count) const {
    std::unique_lock lock(core_->mutex);
    for (;;) {
      auto next = pieces_.upper_bound(offset);
      const std::uint64_t gap = next == pieces_.end() ? count : next->first - offset;
      if (next == pieces_.begin() || std::prev(next)->second->end <= offset) {
        count = static_cast<std::size_t>(std::min<std::uint64_t>(count, gap));
        return nullptr;
      }
      const auto piece = std::prev(next)->second;
      if (piece->is_ready) {
        ++piece->num_readers;
        count = static_cast<std::size_t>(std::min<std::uint64_t>(count, piece->end - offset));
        return piece;
      }
      core_->ready.wait(lock);
    }
  }

  void taken(const std::shared_ptr<Piece>& piece, std::size_t count) const {
    const std::lock_guard lock(core_->mutex);
    --piece->num_readers;
    piece->left -= std::min<std::uint64_t>(piece->left, count);
    if (piece->left == 0) drop(*piece);
  }

  std::unique_ptr<ReadableFile> file_;
  int direct_;
  std::shared_ptr<Core> core_;
  mutable std::map<std::uint64_t, std::shared_ptr<Piece>> pieces_;  // by first wanted byte
  mutable int num_reading_ = 0;                                     // threads that read a piece of it now
};

void PrefetchRoom::Core::serve() {
  std::unique_lock lock(mutex);
  for (;;) {
    asked.wait(lock, [&] { return is_over || !queue.empty(); });
    if (is_over) return;
    const auto [file, piece] = queue.front();
    queue.pop_front();
    file->reads(+1);
    lock.unlock();
    const bool is_good = read_piece(*piece);
    lock.lock();
    file->reads(-1);
    file->arrived(*piece, is_good);
    ready.notify_all();
  }
}

Buffer PrefetchRoom::Core::take_buffer() {
  // What was overtaken, read in another way before it arrived, is the oldest, and gives way.
  while (!fetched.empty()) {
    const auto& [file, piece] = fetched.front();
    const bool is_full = unused.empty() && num_buffers >= most_buffers;
    if (piece->buffer && !(is_full && file->drop(*piece))) break;
    fetched.pop_front();
  }
  if (!unused.empty()) {
    Buffer buffer = std::move(unused.back());
    unused.pop_back();
    return buffer;
  }
  if (num_buffers >= most_buffers) return nullptr;
  ++num_buffers;
  return Buffer(static_cast<std::byte*>(::operator new (kBuffer, std::align_val_t{kBlock})));
}

PrefetchRoom::PrefetchRoom() : core_(std::make_shared<Core>()) {}

PrefetchRoom::~PrefetchRoom() {
  {
    const std::lock_guard lock(core_->mutex);
    core_->is_over = true;
    for (const auto& [file, piece] : core_->queue) file->arrived(*piece, false);
    core_->queue.clear();
    core_->fetched.clear();
  }
  core_->asked.notify_all();
  core_->ready.notify_all();
  for (auto& thread : core_->threads) thread.join();
}

std::unique_ptr<ReadableFile> PrefetchRoom::wrap(std::unique_ptr<ReadableFile> file, const std::string& path) {
  const int direct = ::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (direct < 0) return file;
  return std::make_unique<File>(std::move(file), direct, core_);
}

void PrefetchRoom::open(std::int64_t bytes) {
  const std::lock_guard lock(core_->mutex);
  core_->most_buffers = static_cast<std::size_t>(std::max<std::int64_t>(0, bytes)) / kBuffer;
  if (core_->most_buffers == 0 || !core_->threads.empty()) return;
  for (int i = 0; i < kThreads; ++i) core_->threads.emplace_back([core = core_.get()] { core->serve(); });
}

void PrefetchRoom::fetch(const ReadableFile& file, std::uint64_t offset, std::uint64_t length) {
  const auto* wrapped = dynamic_cast<const File*>(&file);
  if (wrapped == nullptr || length < kLeast || core_->most_buffers == 0 ||
      is_cached(wrapped->direct(), offset, length)) {
    return file.will_need(offset, length);
  }
  const std::uint64_t end = offset + length;
  {
    const std::lock_guard lock(core_->mutex);
    for (; offset < end; offset = std::min(end, offset + kPiece)) {
      if (!wrapped->add(offset, std::min(end, offset + kPiece))) break;
    }
  }
  core_->asked.notify_all();
  if (offset < end) file.will_need(offset, end - offset);
}

}  // namespace skein
