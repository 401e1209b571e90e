#include "skein/text/golden_corpus.h"

#include <zlib.h>

#include <cstdint>
#include <random>

#include "skein/base/concat.h"
#include "skein/io/json.h"
#include "skein/text/utf8.h"

namespace skein {
namespace {

std::string read_gzip(const std::string& path) {
  const gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) throw Failure(Error{concat(path, ": cannot be opened")});
  std::string content;
  char buffer[1 << 15];
  for (int bytes = 0; (bytes = gzread(file, buffer, sizeof buffer)) > 0;) content.append(buffer, bytes);
  gzclose(file);
  return content;
}

std::uint64_t read_varint(const std::string& bytes, std::size_t& at) {
  std::uint64_t number = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes.at(at++));
    number |= std::uint64_t{byte & 0x7FU} << shift;
    if (byte < 0x80) return number;
  }
}

// The ids from where the two part.
std::string show(const std::vector<TokenId>& ids, const std::vector<TokenId>& other, const Tokenizer& tokenizer) {
  std::size_t first = 0;
  while (first < ids.size() && first < other.size() && ids[first] == other[first]) ++first;
  std::string text = concat(" from ", first);
  for (std::size_t i = first; i < ids.size() && i < first + 16; ++i)
    text += concat(" ", ids[i], ":", printable(tokenizer.token(ids[i])));
  return text;
}

}  // namespace

std::string golden_path(const std::string& name) { return concat(SKEIN_SOURCE_DIR "/tests/golden/tokenizer/", name); }

const std::vector<std::string>& golden_corpus() {
  static const std::vector<std::string> corpus = [] {
    std::vector<std::string> lines;
    or_throw(for_each_json_line(real_env(), golden_path("corpus.jsonl.gz"), [&](Json&& line, std::int64_t) -> Status {
      lines.push_back(line["text"].get<std::string>());
      return {};
    }));
    return lines;
  }();
  return corpus;
}

std::vector<std::vector<TokenId>> golden_ids(const std::string& name) {
  const std::string bytes = read_gzip(golden_path(name + ".ids.gz"));
  std::vector<std::vector<TokenId>> all;
  for (std::size_t at = 0; at < bytes.size();) {
    all.emplace_back(read_varint(bytes, at));
    for (TokenId& id : all.back()) id = static_cast<TokenId>(read_varint(bytes, at));
  }
  return all;
}

const std::map<std::string, TinyTokenizer>& tiny_tokenizers() {
  static const std::map<std::string, TinyTokenizer> all = [] {
    std::map<std::string, TinyTokenizer> found;
    const std::string path = golden_path("tokenizers.jsonl.gz");
    or_throw(for_each_json_line(real_env(), path, [&](Json&& line, std::int64_t) -> Status {
      found[line["name"].get<std::string>()] = {line["tokenizer"].dump(), line["config"].dump()};
      return {};
    }));
    return found;
  }();
  return all;
}

void expect_golden_ids(const Tokenizer& tokenizer, const std::string& name, const EncodeOptions& options) {
  const auto expected = golden_ids(name);
  const auto& corpus = golden_corpus();
  ASSERT_GE(corpus.size(), 5000U);
  ASSERT_EQ(expected.size(), corpus.size());
  int differing = 0;
  for (std::size_t i = 0; i < corpus.size(); ++i) {
    const auto ids = tokenizer.encode(corpus[i], options);
    if (ids == expected[i]) continue;
    if (++differing <= 5) {
      ADD_FAILURE() << name << ", line " << i + 1 << ": \"" << printable(corpus[i]) << "\"\n  got "
                    << show(ids, expected[i], tokenizer) << "\n  want" << show(expected[i], ids, tokenizer);
    }
  }
  EXPECT_EQ(differing, 0) << "lines of " << corpus.size() << " differ from the peer's";
}

std::string random_text(std::uint32_t seed, bool bytes) {
  std::mt19937 random(seed);
  const auto below = [&](std::uint32_t bound) { return static_cast<std::uint32_t>(random() % bound); };
  static const char* const kPieces[] = {" ",      "  ",    "\n", "\r\n",      "\t",          "the",  "'s", "'LL",
                                        "12345",  "x",     ".",  "()",        "▁",           "Ġ",    "<",  "<|im_end|>",
                                        "<0x0A>", "don't", "é",  "e\xCC\x81", "👩‍💻", "    ", "…",  "ﬁ"};
  std::string text;
  const std::uint32_t parts = below(30);
  for (std::uint32_t part = 0; part < parts; ++part) {
    switch (below(bytes ? 5 : 4)) {
      case 0:
      case 1:
        text += kPieces[below(std::size(kPieces))];
        break;
      case 2:
        text.push_back(static_cast<char>(below(0x80)));
        break;
      case 3: {
        const std::uint32_t planes[] = {0x250, 0x3000, 0xD800, 0x110000};
        const char32_t c = below(planes[below(4)]);
        if (c < 0xD800 || c > 0xDFFF) append_utf8(c, text);
        break;
      }
      default:
        text.push_back(static_cast<char>(below(256)));
    }
  }
  return text;
}

}  // namespace skein
