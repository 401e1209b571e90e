// Valid files with bytes flipped, cut out, doubled and overwritten, thousands of times: every parser must end with a
// value or an error, within its bounds. Deterministic. Run under the sanitizers it is a small fuzzer; tests/fuzz/ has
// the large ones.
#include <functional>
#include <random>

#include "skein/io/gguf.h"
#include "skein/io/json.h"
#include "skein/io/pickle.h"
#include "skein/io/safetensors.h"
#include "skein/io/test_bytes.h"
#include "skein/io/torch_archive.h"

namespace skein {
namespace {

using testing::golden_bytes;

std::string mutated(std::string bytes, std::mt19937& random) {
  const auto below = [&](std::size_t bound) {
    return bound == 0 ? 0 : std::uniform_int_distribution<std::size_t>(0, bound - 1)(random);
  };
  const std::size_t changes = 1 + below(4);
  for (std::size_t i = 0; i < changes && !bytes.empty(); ++i) {
    const std::size_t at = below(bytes.size());
    switch (below(6)) {
      case 0:
        bytes[at] = static_cast<char>(static_cast<unsigned char>(bytes[at]) ^ (1U << below(8)));
        break;
      case 1:
        bytes[at] = static_cast<char>(below(256));
        break;
      case 2:
        bytes.erase(at, 1 + below(8));
        break;
      case 3:
        bytes.insert(at, bytes.substr(at, 1 + below(16)));
        break;
      case 4:
        bytes.resize(at);
        break;
      default: {  // eight bytes at once: lengths, counts and offsets at their extremes
        const std::uint64_t extremes[] = {0, ~0ULL, 1ULL << 63, ~0ULL >> 1, 1ULL << 32, 0xffffffffULL};
        for (std::size_t j = 0; j < 8 && at + j < bytes.size(); ++j)
          bytes[at + j] = static_cast<char>(extremes[below(6)] >> (8 * j));
      }
    }
  }
  return bytes;
}

// parse: true if it took the bytes. Some mutations must be found out, and (as some bytes are free) some must not.
void expect_survives(const std::string& valid, int rounds, const std::function<bool(const std::string&)>& parse) {
  ASSERT_TRUE(parse(valid));
  std::mt19937 random(1);
  int refused = 0;
  for (int i = 0; i < rounds; ++i) refused += parse(mutated(valid, random)) ? 0 : 1;
  EXPECT_GT(refused, rounds / 10);
  EXPECT_LT(refused, rounds);
}

TEST(Mutations, OfASafetensorsFileAreSurvived) {
  expect_survives(golden_bytes("safetensors/all_types.safetensors"), 20000, [](const std::string& bytes) {
    const auto opened = open_safetensors(*testing::env_with("m", bytes), "m");
    if (!opened.ok()) return false;
    for (const auto& info : (*opened)->tensors()) {
      if (!is_floating(info.dtype)) continue;
      std::vector<std::byte> out(4 * static_cast<std::size_t>(*checked_numel(info.shape)));
      EXPECT_TRUE((*opened)->read(info.name, DType::kF32, out).ok());
    }
    return true;
  });
}

TEST(Mutations, OfAGgufFileAreSurvived) {
  const std::string golden = golden_bytes("gguf/quants.gguf");
  expect_survives(golden, 3000, [](const std::string& bytes) {
    const auto opened = GgufFile::open(*testing::env_with("m", bytes), "m");
    if (!opened.ok()) return false;
    for (const auto& tensor : (*opened)->tensors()) {
      std::vector<float> out(static_cast<std::size_t>(*checked_numel(tensor.shape)));
      dequantize_rows(tensor, 0, static_cast<std::int64_t>(out.size()) / tensor.shape.back(), out.data());
    }
    return true;
  });
}

TEST(Mutations, OfAGgufHeadAreSurvived) {
  // Mutations of a whole file mostly hit tensor data; here only what the parser reads is changed.
  const std::string golden = golden_bytes("gguf/quants.gguf");
  const std::size_t head = golden.find("Q6_K.expected") + 13 + 4 + 16 + 4 + 8;
  const std::string rest = golden.substr(head);
  expect_survives(golden.substr(0, head), 20000, [&](const std::string& bytes) {
    return GgufFile::open(*testing::env_with("m", bytes + rest), "m").ok();
  });
}

TEST(Mutations, OfJsonLinesAreSurvived) {
  const std::string valid =
      R"({"input": "caf\u00e9 \"x\"", "target": "a", "choices": ["a", "b"], "n": [1, -2.5e3, null]})"
      "\n{\"input\": {}}\n";
  expect_survives(valid, 20000, [](const std::string& bytes) {
    return for_each_json_line(*testing::env_with("d", bytes), "d", [](Json&&, std::int64_t) { return Status(); }).ok();
  });
}

TEST(Mutations, OfATorchArchiveAreSurvived) {
  expect_survives(golden_bytes("torch/state_dict.pt"), 10000, [](const std::string& bytes) {
    return TorchArchive::open(*testing::env_with("t", bytes), "t").ok();
  });
}

TEST(Mutations, OfAPickleAreSurvived) {
  // A pickle alone, without the zip checksum before it: the first member, up to its data descriptor.
  const std::string archive = golden_bytes("torch/lightning.ckpt");
  const std::size_t begin = archive.find("\x80\x02}"), end = archive.find("PK\x07\x08", begin);
  const std::string valid = archive.substr(begin, end - begin);
  expect_survives(valid, 20000,
                  [](const std::string& bytes) { return parse_pickle(std::as_bytes(std::span(bytes)), "t").ok(); });
}

}  // namespace
}  // namespace skein
