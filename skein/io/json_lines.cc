// .jsonl and .jsonl.gz, one object a line.
#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "skein/base/concat.h"
#include "skein/io/json.h"

namespace skein {
namespace {

constexpr std::size_t kChunkBytes = 256 << 10;
constexpr std::size_t kMaxLineBytes = 64 << 20;

// The text of a file in chunks, unpacked if it starts as gzip does, whatever its name.
class TextChunks {
 public:
  static Result<std::unique_ptr<TextChunks>> open(Env& env, const std::string& path) {
    std::unique_ptr<TextChunks> chunks(new TextChunks);
    SKEIN_ASSIGN(chunks->file_, env.open(path));
    chunks->path_ = path;
    SKEIN_TRY(chunks->load());
    const auto& raw = chunks->raw_;
    chunks->packed_ = raw.size() >= 2 && raw[0] == std::byte{0x1f} && raw[1] == std::byte{0x8b};
    if (!chunks->packed_ && path.ends_with(".gz") && !raw.empty()) {
      return Error{concat(path, " is not gzip data, as its name says; was it unpacked already?")};
    }
    // 16: gzip framing, which zlib then checks, the checksum included.
    if (chunks->packed_ && inflateInit2(&chunks->stream_, 16 + MAX_WBITS) != Z_OK) {
      return Error{concat("cannot unpack ", path, ": out of memory")};
    }
    return chunks;
  }
  ~TextChunks() {
    if (packed_) inflateEnd(&stream_);
  }

  // The next piece into `text`; empty at the end.
  Status next(std::string& text) {
    if (!packed_) {
      text.assign(reinterpret_cast<const char*>(raw_.data()), raw_.size());
      return load();
    }
    text.resize(kChunkBytes);
    stream_.next_out = reinterpret_cast<Bytef*>(text.data());
    stream_.avail_out = static_cast<uInt>(text.size());
    SKEIN_TRY(unpack());
    text.resize(text.size() - stream_.avail_out);
    return {};
  }

 private:
  TextChunks() { std::memset(&stream_, 0, sizeof stream_); }

  Status load() {
    raw_.resize(std::min<std::uint64_t>(kChunkBytes, file_->size() - offset_));
    SKEIN_TRY(file_->read_at(offset_, raw_));
    offset_ += raw_.size();
    stream_.next_in = reinterpret_cast<Bytef*>(raw_.data());
    stream_.avail_in = static_cast<uInt>(raw_.size());
    return {};
  }

  Status unpack() {
    while (stream_.avail_out > 0) {
      if (stream_.avail_in == 0) SKEIN_TRY(load());
      if (stream_.avail_in == 0) {
        if (between_members_) return {};
        return Error{concat(path_, " ends in the middle of its gzip data; was it cut short?")};
      }
      if (between_members_ && started_) inflateReset(&stream_);  // gzip files may be joined end to end
      started_ = true;
      between_members_ = false;
      const int outcome = inflate(&stream_, Z_NO_FLUSH);
      if (outcome == Z_STREAM_END) {
        between_members_ = true;
      } else if (outcome != Z_OK) {
        return Error{concat(path_, ": damaged gzip data before packed byte ", offset_ - stream_.avail_in, " (",
                            stream_.msg != nullptr ? stream_.msg : "unexpected end", ")")};
      }
    }
    return {};
  }

  std::string path_;
  std::unique_ptr<ReadableFile> file_;
  std::uint64_t offset_ = 0;
  std::vector<std::byte> raw_;
  bool packed_ = false;
  bool started_ = false;
  bool between_members_ = true;
  z_stream stream_;
};

using OnLine = std::function<Status(Json&&, std::int64_t)>;

Status parse_line(const std::string& line, std::int64_t number, const std::string& path, const OnLine& on_line) {
  if (line.find_first_not_of(" \t\r") == std::string::npos) return {};
  const std::string where = concat(path, ":", number);
  // A line is line 1 of its own text: the parser's line number is dropped.
  auto document = parse_json(line, where);
  if (!document.ok()) {
    std::string message = document.error().message;
    const std::string doubled = where + ":1:";
    if (message.starts_with(doubled)) message = where + message.substr(doubled.size() - 1);
    return Error{message};
  }
  if (!document->is_object())
    return Error{concat(where, ": found ", document->type_name(), "; an object was expected")};
  return on_line(std::move(*document), number);
}

}  // namespace

Status for_each_json_line(Env& env, const std::string& path, const OnLine& on_line) {
  SKEIN_ASSIGN(const auto chunks, TextChunks::open(env, path));
  std::string chunk, line;
  std::int64_t number = 1;
  for (;;) {
    SKEIN_TRY(chunks->next(chunk));
    if (chunk.empty()) break;
    for (std::size_t begin = 0; begin < chunk.size();) {
      const std::size_t found = chunk.find('\n', begin);
      const std::size_t end = std::min(found, chunk.size());
      if (line.size() + (end - begin) > kMaxLineBytes) {
        return Error{concat(path, ":", number, ": the line is longer than 64 MiB; are there line breaks at all?")};
      }
      line.append(chunk, begin, end - begin);
      if (found == std::string::npos) break;
      SKEIN_TRY(parse_line(line, number, path, on_line));
      line.clear();
      ++number;
      begin = found + 1;
    }
  }
  return parse_line(line, number, path, on_line);
}

}  // namespace skein
