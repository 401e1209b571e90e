// What the README shows is run: its shell block, word for word, on the tiny base instead of SmolLM2 and with fewer
// steps.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/end_to_end/program.h"

namespace skein {
namespace {

// The first ```sh block that holds `word`.
std::string shell_block(const std::string& page, const std::string& word) {
  const std::string open = "```sh\n", close = "\n```";
  for (std::size_t begin = page.find(open); begin != std::string::npos; begin = page.find(open, begin + 1)) {
    const std::size_t first = begin + open.size(), end = page.find(close, first);
    const std::string block = page.substr(first, end - first);
    if (block.find(word) != std::string::npos) return block + "\n";
  }
  return {};
}

void replace(std::string& text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << "the README no longer says: " << from;
  text.replace(at, from.size(), to);
}

TEST(Readme, ItsCommandsRunAsTheyStand) {
  const TemporaryFolder folder;
  letter_task(folder, "sentiment", "ab", 16);
  letter_task(folder, "questions", "xyz", 18);
  letter_task(folder, "heldout", "ab", 8);
  std::string block = shell_block(read_file(SKEIN_SOURCE_DIR "/README.md"), "train expert");
  replace(block, "skein=build/skein", "skein=" SKEIN_PROGRAM);
  replace(block, "base=models/smollm2.gguf", "base=" + tiny_base(folder));
  replace(block, "--steps 200", "--steps 2 --batch 4 --max-input 32");
  write_file(folder / "block.sh", "set -eu\ncd " + folder.path() + "\n" + block);
  const int code = std::system(("bash " + folder.path() + "/block.sh > " + folder.path() + "/log 2>&1").c_str());
  EXPECT_EQ(code, 0) << read_file(folder / "log");
  EXPECT_EQ(json_lines_of(read_file(folder / "results.jsonl")).size(), 8u);
  EXPECT_TRUE(exists(folder / "trace.html"));
}

}  // namespace
}  // namespace skein
