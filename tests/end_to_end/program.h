// Runs the built program as a child, and makes the files it is tried on.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "skein/io/json.h"
#include "skein/io/temporary_folder.h"

namespace skein {

struct Outcome {
  int code = 0;                 // exit code; 128 + signal when killed by one
  std::string out, err;         // stdout, stderr
  std::int64_t peak_bytes = 0;  // of run_skein(): memory resident at once, at most; the caller's own counts too
};

struct RunOptions {
  std::string input;                             // stdin
  std::optional<std::uint64_t> file_size_limit;  // bytes a file may have; writes beyond fail as on a full disk
  std::string out_path;                          // stdout to this file instead
};

// skein ARGUMENTS, to the end.
Outcome run_skein(const std::vector<std::string>& arguments, const RunOptions& options = {});
// Started, not awaited.
class RunningSkein {
 public:
  explicit RunningSkein(const std::vector<std::string>& arguments);
  ~RunningSkein();  // kills what still runs
  void signal(int number);
  bool is_running();
  Outcome wait();

 private:
  pid_t pid_ = -1;
  std::string out_path_, err_path_;
  std::optional<int> status_;
};

std::string read_file(const std::string& path);  // empty if absent
void write_file(const std::string& path, const std::string& content);
bool exists(const std::string& path);
std::vector<std::string> names_in(const std::string& folder);  // sorted, hidden ones too
Json json_of(const std::string& text);
std::vector<Json> json_lines_of(const std::string& text);

// The tiny Llama of tests/golden (64 positions, 96 tokens) with a tokenizer of one token per ASCII character.
std::string tiny_base(const TemporaryFolder& folder, const std::string& name = "base");
// The tiny T5 v1.1, likewise.
std::string tiny_t5(const TemporaryFolder& folder);
// A file of `count` examples whose answer is told by the input's first letter.
std::string letter_task(const TemporaryFolder& folder, const std::string& name, const std::string& letters, int count);
// An expert of a few steps, with a gate.
std::string tiny_expert(const TemporaryFolder& folder, const std::string& base, const std::string& data,
                        const std::string& name);

// A copy of a safetensors file with one f32 of one tensor replaced.
void poke_f32(const std::string& path, const std::string& tensor, std::size_t element, float value);

}  // namespace skein
