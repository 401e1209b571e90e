#include "tests/end_to_end/program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace skein {
namespace fs = std::filesystem;
namespace {

std::string temporary_path(const char* what) {
  std::string path = fs::temp_directory_path() / (std::string("skein_") + what + "_XXXXXX");
  const int file = mkstemp(path.data());
  EXPECT_GE(file, 0);
  close(file);
  return path;
}

void redirect(const std::string& path, int flags, int to) {
  const int file = open(path.c_str(), flags, 0600);
  if (file < 0 || dup2(file, to) < 0) _exit(125);
}

// In the child: streams to files, limits set, then the program.
[[noreturn]] void become_skein(const std::vector<std::string>& arguments, const std::string& in, const std::string& out,
                               const std::string& err, const RunOptions& options) {
  redirect(in, O_RDONLY, STDIN_FILENO);
  redirect(out, O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
  redirect(err, O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO);
  if (options.file_size_limit) {
    const rlimit limit{*options.file_size_limit, *options.file_size_limit};
    setrlimit(RLIMIT_FSIZE, &limit);
    ::signal(SIGXFSZ, SIG_IGN);  // kept across exec: a write beyond the limit returns an error
  }
  std::vector<char*> words = {const_cast<char*>("skein")};
  for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  execv(SKEIN_PROGRAM, words.data());
  _exit(126);
}

std::string base_of(const std::string& path, const char* model, const char* tokenizer) {
  const fs::path source = SKEIN_SOURCE_DIR;
  fs::copy(source / "tests/golden/models" / model, path);
  fs::copy(source / "tests/end_to_end" / tokenizer, path, fs::copy_options::recursive);
  return path;
}

int code_of(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

}  // namespace

Outcome run_skein(const std::vector<std::string>& arguments, const RunOptions& options) {
  const std::string in = temporary_path("in"), out = temporary_path("out"), err = temporary_path("err");
  write_file(in, options.input);
  const pid_t pid = fork();
  if (pid == 0) become_skein(arguments, in, options.out_path.empty() ? out : options.out_path, err, options);
  int status = 0;
  rusage usage{};
  wait4(pid, &status, 0, &usage);
  const Outcome outcome{code_of(status), read_file(out), read_file(err), usage.ru_maxrss * 1024};
  for (const std::string& path : {in, out, err}) fs::remove(path);
  return outcome;
}

RunningSkein::RunningSkein(const std::vector<std::string>& arguments)
    : out_path_(temporary_path("out")), err_path_(temporary_path("err")) {
  pid_ = fork();
  if (pid_ == 0) become_skein(arguments, "/dev/null", out_path_, err_path_, {});
}

RunningSkein::~RunningSkein() {
  if (is_running()) {
    signal(SIGKILL);
    wait();
  }
  fs::remove(out_path_);
  fs::remove(err_path_);
}

void RunningSkein::signal(int number) { kill(pid_, number); }

bool RunningSkein::is_running() {
  int status = 0;
  if (!status_ && waitpid(pid_, &status, WNOHANG) == pid_) status_ = status;
  return !status_;
}

Outcome RunningSkein::wait() {
  int status = 0;
  if (!status_ && waitpid(pid_, &status, 0) == pid_) status_ = status;
  return {code_of(*status_), read_file(out_path_), read_file(err_path_)};
}

std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

void write_file(const std::string& path, const std::string& content) {
  fs::create_directories(fs::path(path).parent_path());
  std::ofstream stream(path, std::ios::binary);
  stream << content;
  EXPECT_TRUE(stream.flush()) << path;
}

bool exists(const std::string& path) { return fs::exists(path); }

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

Json json_of(const std::string& text) {
  Json json = Json::parse(text, nullptr, false);
  EXPECT_FALSE(json.is_discarded()) << "not JSON: " << text.substr(0, 400);
  return json;
}

std::vector<Json> json_lines_of(const std::string& text) {
  std::vector<Json> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(json_of(line));
  return lines;
}

std::string tiny_base(const TemporaryFolder& folder, const std::string& name) {
  return base_of(folder / name, "llama", "tiny");
}

std::string tiny_t5(const TemporaryFolder& folder) { return base_of(folder / "t5", "t5_v11", "tiny_t5"); }

std::string letter_task(const TemporaryFolder& folder, const std::string& name, const std::string& letters, int count) {
  std::string lines;
  for (int i = 0; i < count; ++i) {
    const char letter = letters[i % letters.size()];
    Json choices = Json::array();
    for (const char choice : letters) choices.push_back(std::string(1, choice));
    lines +=
        Json{{"input", letter + std::to_string(i)}, {"target", std::string(1, letter)}, {"choices", choices}}.dump() +
        "\n";
  }
  const std::string path = folder / (name + ".jsonl");
  write_file(path, lines);
  return path;
}

std::string tiny_expert(const TemporaryFolder& folder, const std::string& base, const std::string& data,
                        const std::string& name) {
  const std::string path = folder / name;
  Outcome outcome = run_skein({"train", "expert", "--base", base, "--data", data, "--out", path, "--steps", "4",
                               "--batch", "4", "--rank", "4", "--dtype", "f32", "--threads", "1"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  outcome = run_skein({"train", "gate", "--base", base, "--expert", path, "--data", data, "--steps", "3", "--batch",
                       "4", "--dtype", "f32", "--threads", "1"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  return path;
}

void poke_f32(const std::string& path, const std::string& tensor, std::size_t element, float value) {
  std::string bytes = read_file(path);
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  const Json header = json_of(bytes.substr(8, header_bytes));
  ASSERT_TRUE(header.contains(tensor)) << tensor;
  const auto begin = header[tensor]["data_offsets"][0].get<std::uint64_t>();
  std::memcpy(bytes.data() + 8 + header_bytes + begin + 4 * element, &value, 4);
  write_file(path, bytes);
}

}  // namespace skein
