#include "skein/io/prefetch_room.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <thread>

#include "skein/base/concat.h"

namespace skein {
namespace {

// A file of 9 MB and 123 bytes of known content, out of the page cache where the system lets it go.
class PrefetchRoomTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() / concat("skein_prefetch_", ::getpid())).string();
    content_.resize(9'000'123);
    std::uint32_t state = 1;
    for (auto& byte : content_) byte = static_cast<std::byte>((state = state * 1664525 + 1013904223) >> 24);
    or_throw(write_file_atomically(real_env(), path_, content_));
    const int file = ::open(path_.c_str(), O_RDONLY);
    ASSERT_EQ(::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED), 0);
    ::close(file);
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::unique_ptr<ReadableFile> open_in(PrefetchRoom& room) {
    return room.wrap(or_throw(real_env().open(path_)), path_);
  }
  bool has_content(const ReadableFile& file, std::uint64_t offset, std::size_t size) {
    std::vector<std::byte> bytes(size);
    or_throw(file.read_at(offset, bytes));
    return std::memcmp(bytes.data(), content_.data() + offset, size) == 0;
  }

  std::string path_;
  std::vector<std::byte> content_;
};

TEST_F(PrefetchRoomTest, GivesTheFilesBytesHoweverTheyAreFetchedAndRead) {
  for (const std::int64_t room_bytes : {0, 2'000'000, 64'000'000}) {  // none; too small, so that pieces give way; ample
    PrefetchRoom room;
    room.open(room_bytes);
    const auto file = open_in(room);
    for (std::uint64_t at = 5; at < content_.size(); at += 3'000'001) {
      room.fetch(*file, at, std::min<std::uint64_t>(3'000'001, content_.size() - at));
    }
    // Across pieces, before the first, to the very end; the second time they are no longer fetched.
    for (int time = 0; time < 2; ++time) {
      for (std::uint64_t at = 0; at < content_.size(); at += 130'007) {
        ASSERT_TRUE(has_content(*file, at, std::min<std::size_t>(130'007, content_.size() - at)))
            << "at " << at << ", room " << room_bytes << ", time " << time;
      }
    }
  }
}

TEST_F(PrefetchRoomTest, ServesManyReadersOfOnePiece) {
  PrefetchRoom room;
  room.open(16'000'000);
  const auto file = open_in(room);
  room.fetch(*file, 0, content_.size());
  std::vector<std::thread> readers;
  std::vector<int> wrong(4, 0);
  for (std::size_t reader = 0; reader < wrong.size(); ++reader) {
    readers.emplace_back([&, reader] {
      for (std::uint64_t at = reader * 10'000; at + 10'000 < content_.size(); at += 40'000) {
        wrong[reader] += has_content(*file, at, 10'000) ? 0 : 1;
      }
    });
  }
  for (auto& reader : readers) reader.join();
  EXPECT_THAT(wrong, testing::Each(0));
}

TEST_F(PrefetchRoomTest, AFileCutShortIsAnErrorOfTheRead) {
  PrefetchRoom room;
  room.open(16'000'000);
  const auto file = open_in(room);
  std::filesystem::resize_file(path_, 4'000'000);
  room.fetch(*file, 3'500'000, 2'000'000);
  EXPECT_TRUE(has_content(*file, 3'500'000, 100'000));
  std::vector<std::byte> bytes(1'000'000);
  const Status read = file->read_at(3'500'000, bytes);
  ASSERT_FALSE(read.ok());
  EXPECT_THAT(read.error().message, testing::HasSubstr("was it cut short?"));
}

TEST_F(PrefetchRoomTest, FilesAndRoomMayEndInAnyOrderWithPiecesUnderWay) {
  for (int time = 0; time < 20; ++time) {
    auto room = std::make_unique<PrefetchRoom>();
    room->open(16'000'000);
    auto first = open_in(*room);
    const auto second = open_in(*room);
    room->fetch(*first, 0, content_.size());
    room->fetch(*second, 0, content_.size());
    first.reset();
    room.reset();
    EXPECT_TRUE(has_content(*second, 1'000'000, 3'000'000));
  }
}

}  // namespace
}  // namespace skein
