#include <zlib.h>

#include <gmock/gmock.h>

#include "skein/io/json.h"
#include "skein/io/test_bytes.h"

namespace skein {
namespace {

using ::testing::ElementsAre;
using testing::env_with;
using testing::expect_error;

std::string gzip(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string packed(deflateBound(&stream, text.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

// "NUMBER:DOCUMENT" per line.
Result<std::vector<std::string>> lines_of(const std::string& path, const std::string& bytes) {
  std::vector<std::string> seen;
  const auto env = env_with(path, bytes);
  SKEIN_TRY(for_each_json_line(*env, path, [&](Json&& object, std::int64_t number) -> Status {
    seen.push_back(std::to_string(number) + ":" + object.dump());
    return {};
  }));
  return seen;
}

TEST(JsonLines, GivesEachObjectWithItsNumber) {
  EXPECT_THAT(or_throw(lines_of("d.jsonl", "{\"a\":1}\n\n  \r\n{\"b\":2}\r\n{\"c\":3}")),
              ElementsAre("1:{\"a\":1}", "4:{\"b\":2}", "5:{\"c\":3}"));
}

TEST(JsonLines, AnEmptyFileHasNoLines) {
  EXPECT_TRUE(or_throw(lines_of("d.jsonl", "")).empty());
  EXPECT_TRUE(or_throw(lines_of("d.jsonl", "\n\n")).empty());
}

TEST(JsonLines, ReadsLinesThatCrossChunks) {
  std::string text, long_text(300 << 10, 'x');  // longer than a chunk of the reader
  for (int i = 0; i < 5; ++i) text += "{\"i\":" + std::to_string(i) + ",\"t\":\"" + long_text + "\"}\n";
  EXPECT_EQ(or_throw(lines_of("d.jsonl", text)).size(), 5u);
  const auto packed = or_throw(lines_of("d.jsonl.gz", gzip(text)));
  ASSERT_EQ(packed.size(), 5u);
  EXPECT_EQ(packed[4].substr(0, 8), "5:{\"i\":4");
}

TEST(JsonLines, ReadsGzipWhateverTheName) {
  EXPECT_THAT(or_throw(lines_of("d.jsonl", gzip("{\"a\":1}\n"))), ElementsAre("1:{\"a\":1}"));
}

TEST(JsonLines, ReadsJoinedGzipFiles) {
  EXPECT_THAT(or_throw(lines_of("d.jsonl.gz", gzip("{\"a\":1}\n{\"b\"") + gzip(":2}\n"))),
              ElementsAre("1:{\"a\":1}", "2:{\"b\":2}"));
}

TEST(JsonLines, NamesFileAndLineOfABadLine) {
  expect_error(lines_of("d.jsonl", "{\"a\":1}\n\n{\"b\":}\n"), "d.jsonl:3: not valid JSON");
}

TEST(JsonLines, RefusesALineThatIsNoObject) {
  expect_error(lines_of("d.jsonl", "{}\n[1]\n"), "d.jsonl:2: found array; an object was expected");
}

TEST(JsonLines, StopsAtTheFirstErrorOfTheCaller) {
  const auto env = env_with("d.jsonl", "{}\n{}\n{}\n");
  int calls = 0;
  const auto status = for_each_json_line(*env, "d.jsonl", [&](Json&&, std::int64_t number) -> Status {
    ++calls;
    if (number == 2) return Error{"no target"};
    return {};
  });
  expect_error(status, "no target");
  EXPECT_EQ(calls, 2);
}

TEST(JsonLines, RefusesCutGzip) {
  const std::string packed = gzip("{\"a\":1}\n{\"b\":2}\n");
  for (std::size_t size = 2; size < packed.size(); ++size) {
    expect_error(lines_of("d.jsonl.gz", packed.substr(0, size)), "cut short");
  }
}

TEST(JsonLines, RefusesDamagedGzip) {
  std::string packed = gzip("{\"a\":1}\n{\"b\":2}\n");
  packed[packed.size() - 6] ^= 1;  // its checksum
  expect_error(lines_of("d.jsonl.gz", packed), "damaged gzip data");
}

TEST(JsonLines, RefusesBytesAfterTheGzipData) {
  expect_error(lines_of("d.jsonl.gz", gzip("{\"a\":1}\n") + "trailing"), "damaged gzip data");
}

TEST(JsonLines, RefusesAGzipNameWithoutGzipData) {
  expect_error(lines_of("d.jsonl.gz", "{\"a\":1}\n"), "not gzip data");
}

TEST(JsonLines, RefusesAnEndlessLine) {
  expect_error(lines_of("d.jsonl.gz", gzip(std::string((64 << 20) + 1, ' '))),
               "d.jsonl.gz:1: the line is longer than 64 MiB");
}

}  // namespace
}  // namespace skein
